"""Prompts to token ids: the half that is alike in every engine."""

from __future__ import annotations

import abc
import re
from collections.abc import Iterable, Iterator
from typing import Final

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.task import Prompt, Segment
from services.neuron.engines.common.prompt_tokens import joined_runs, min_token_counts, single_bytes

_BYTES: Final = 256
_MARKER: Final = re.compile(r"[<\[].+[>\]]")


class Tokeniser(abc.ABC):
    """A model's tokeniser. Safe to use from several threads: nothing changes after loading.

    Attributes:
        size: number of tokens; ids from here on are refused.
    """

    def __init__(
        self, *, size: int, leading_bos_id: int | None, pieces: Iterable[bytes], is_bytewise: bool
    ) -> None:
        """Prepares what is asked of every prompt.

        Args:
            size: number of tokens.
            leading_bos_id: the token that begins a prompt; None where the model wants none.
            pieces: every token's own bytes.
            is_bytewise: a text is tokenised byte by byte as it is: nothing is normalised or left
                out.
        """
        known = list(pieces)
        self.size = size
        self._leading_bos_id = leading_bos_id
        self._longest = max(map(len, known), default=1) or 1
        self._kept_bytes = single_bytes(known) if is_bytewise else b""

    @property
    def longest_token(self) -> int:
        """Bytes of the longest token, if the tokens of a text have all of its bytes; else 0."""
        return self._longest if len(self._kept_bytes) == _BYTES else 0

    def tokenize(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt; text never becomes a control token, control segments do.

        Raises:
            FleetError: BAD_REQUEST, a token id is not in the vocabulary.
        """
        if prompt.token_ids is not None:
            ids = list(prompt.token_ids)
            for position, token_id in enumerate(ids):
                if not 0 <= token_id < self.size:
                    raise unknown_token(f"token_ids.{position}", token_id, self.size)
        else:
            ids = [i for run in joined_runs(prompt.segments) for i in self._segment_ids(run)]
        bos_id = self._leading_bos_id
        if prompt.add_bos and bos_id is not None and ids[:1] != [bos_id]:
            ids.insert(0, bos_id)
        return ids

    def min_token_counts(self, prompt: Prompt) -> Iterator[int]:
        """Lower bounds on a prompt's token count, rising; each costs a bounded piece of work."""
        return min_token_counts(
            prompt,
            count=lambda text: len(self._segment_ids(Segment(text))),
            longest_token=self._longest,
            kept_bytes=self._kept_bytes,
        )

    @abc.abstractmethod
    def tokenize_plain(self, text: bytes) -> list[int]:
        """Token ids of UTF-8 text in which no control token is recognised."""

    @abc.abstractmethod
    def _segment_ids(self, segment: Segment) -> list[int]:
        """Token ids of one segment; control tokens are recognised in control segments alone."""


def unknown_token(field: str, token_id: int, size: int) -> FleetError:
    """What is answered to a token id outside a vocabulary of this size: BAD_REQUEST."""
    words = f"Token id {token_id} is not in the vocabulary (0 to {size - 1})."
    return FleetError(Reason.BAD_REQUEST, words, field=field)


def is_marker(text: str) -> bool:
    """True for added tokens that stand for structure (`<think>`), unlike runs of blanks."""
    return _MARKER.fullmatch(text) is not None


def split_points(markers: Iterable[str]) -> re.Pattern[str]:
    """Matches the empty place behind the first character of each of these tokens.

    Libraries find some added tokens even in plain text; cut in two there, they are only text.
    """
    alternatives = "|".join(
        rf"(?<={re.escape(text[0])})(?={re.escape(text[1:])})"
        for text in sorted(markers, key=len, reverse=True)
        if len(text) > 1
    )
    return re.compile(alternatives or r"(?!)")
