"""Splits private reasoning (`<think>…</think>`) from the answer. Pure.

Reasoning is only looked for at the beginning of an output, or from its first character where the
prompt itself has opened it: a model that merely writes about `<think>` is quoted, not hidden.
Reasoning that the output's end cuts off stays reasoning; but where the last thing in it is a call,
the model forgot to close it, and the call counts. A call quoted further up is a thought.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Sequence
from typing import Final

from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.neuron.chat.stream import (
    ChatParser,
    Piece,
    PlainParser,
    ReasoningPiece,
    ToolCallPiece,
    held_back,
)
from services.neuron.chat.tool_calls.parsing.calls import CUT_OFF

_UNCLOSED: Final = "took a call out of reasoning that never ended"


@dataclasses.dataclass(frozen=True, slots=True)
class ReasoningMarkers:
    """How a family of models marks its reasoning."""

    opening: str
    closing: str


FORMATS: Final[dict[str, ReasoningMarkers]] = {
    "think": ReasoningMarkers("<think>", "</think>"),
    "thinking": ReasoningMarkers("<thinking>", "</thinking>"),
    "seed": ReasoningMarkers("<seed:think>", "</seed:think>"),
    "mistral": ReasoningMarkers("[THINK]", "[/THINK]"),
    "gemma": ReasoningMarkers("<|channel>thought", "<channel|>"),
    "cohere": ReasoningMarkers("<|START_THINKING|>", "<|END_THINKING|>"),
}
SPELLINGS: Final = frozenset(
    spelling for markers in FORMATS.values() for spelling in (markers.opening, markers.closing)
)


def markers_of(template_source: str) -> ReasoningMarkers | None:
    """The markers that a chat template speaks of; None where it speaks of none."""
    for markers in FORMATS.values():
        if markers.opening in template_source or markers.closing in template_source:
            return markers
    return None


def is_opened(tail: str, markers: ReasoningMarkers) -> bool:
    """Whether the end of a prompt has opened reasoning and not closed it."""
    return tail.rfind(markers.opening) > tail.rfind(markers.closing)


class _State(enum.Enum):
    START = enum.auto()
    REASONING = enum.auto()
    GAP = enum.auto()
    """Behind the closing marker: blank lines belong to neither side."""
    ANSWER = enum.auto()


class ReasoningParser(ChatParser):
    """Splits one output, and hands the answer to the next parser."""

    def __init__(
        self, markers: ReasoningMarkers, *, opened: bool, answer: ChatParser | None = None
    ) -> None:
        """Begins an output.

        Args:
            markers: of this model.
            opened: the prompt has already opened the reasoning.
            answer: reads what follows the reasoning; plain text by default.
        """
        self._markers = markers
        self._state = _State.REASONING if opened else _State.START
        self._held = ""
        self._thoughts: list[str] = []
        self._answer = answer or PlainParser()

    @property
    @override
    def is_reasoning(self) -> bool:
        return self._state is _State.REASONING

    @override
    def feed(self, text: str) -> Sequence[Piece]:
        if self._state is _State.ANSWER:
            return self._answer.feed(text)
        self._held += text
        pieces: list[Piece] = []
        if self._state is _State.START:
            pieces += self._start()
        if self._state is _State.REASONING:
            pieces += self._reason()
        if self._state is _State.GAP:
            pieces += self._skip_gap()
        return pieces

    @override
    def finish(self, *, is_cut: bool = False) -> Sequence[Piece]:
        held, self._held = self._held, ""
        if self._state is _State.REASONING:
            thought = self._thought(held.rstrip("\n"))
            # a model that was not done thinking has not forgotten to say so
            return thought if is_cut else [*thought, *self._calls_at_end()]
        if self._state is _State.START and held:
            return [*self._answer.feed(held), *self._answer.finish(is_cut=is_cut)]
        return self._answer.finish(is_cut=is_cut)

    def _start(self) -> Sequence[Piece]:
        seen = self._held.lstrip()
        if seen.startswith(self._markers.opening):
            self._held = seen[len(self._markers.opening) :]
            self._state = _State.REASONING
        elif not self._markers.opening.startswith(seen):
            return self._answer_from(self._held)
        return ()

    def _reason(self) -> Sequence[Piece]:
        if not self._thoughts:
            self._held = self._held.lstrip("\n")
        thought, closing, rest = self._held.partition(self._markers.closing)
        if closing:
            self._held, self._state = rest, _State.GAP
            return self._thought(thought.rstrip("\n"))
        certain = thought[: len(thought) - held_back(thought, self._markers.closing)]
        certain = certain.rstrip("\n")
        self._held = thought[len(certain) :]
        return self._thought(certain)

    def _skip_gap(self) -> Sequence[Piece]:
        rest = self._held.lstrip("\n")
        if not rest:
            self._held = ""
            return ()
        return self._answer_from(rest)

    def _answer_from(self, text: str) -> Sequence[Piece]:
        self._held, self._state = "", _State.ANSWER
        return self._answer.feed(text)

    def _thought(self, text: str) -> Sequence[Piece]:
        if not text:
            return ()
        self._thoughts.append(text)
        return (ReasoningPiece(text),)

    def _calls_at_end(self) -> Sequence[Piece]:
        """The whole calls that all of the reasoning ends with."""
        read = [*self._answer.feed("".join(self._thoughts)), *self._answer.finish()]
        last = itertools.takewhile(lambda piece: _is_call(piece) or _is_blank(piece), read[::-1])
        calls = [piece for piece in last if isinstance(piece, ToolCallPiece)][::-1]
        if not calls or any(CUT_OFF in piece.repair for piece in calls):
            return ()
        first = calls[0].index
        told = [dataclasses.replace(piece, index=piece.index - first) for piece in calls]
        repairs = "; ".join(filter(None, (told[0].repair, _UNCLOSED)))
        return [dataclasses.replace(told[0], repair=repairs), *told[1:]]


def _is_call(piece: Piece) -> bool:
    return isinstance(piece, ToolCallPiece)


def _is_blank(piece: Piece) -> bool:
    return not isinstance(piece, ToolCallPiece) and not piece.text.strip()


def reasoning_markers(reasoning_format: str, template_source: str) -> ReasoningMarkers | None:
    """How a model marks its reasoning; None where it does not reason.

    Args:
        reasoning_format: as in cortex.v1.LoadSpec: a name, `none`, or empty for the template's.
        template_source: the model's chat template.

    Raises:
        FleetError: BAD_REQUEST, there is no such format.
    """
    if reasoning_format == "none":
        return None
    if not reasoning_format:
        return markers_of(template_source)
    markers = FORMATS.get(reasoning_format)
    if markers is None:
        known = ", ".join(["none", *FORMATS])
        raise FleetError(
            Reason.BAD_REQUEST,
            f"No reasoning format {reasoning_format!r} (known: {known}).",
            field="spec.reasoning_format",
        )
    return markers
