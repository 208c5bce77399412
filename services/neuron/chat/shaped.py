"""An answer that is held to a shape, or a call in its place. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from services.neuron.chat.stream import ChatParser, Piece, PlainParser


class ShapedParser(ChatParser):
    """Hands an output that begins as a call does to the parser of calls.

    Anything else is text throughout, whatever markers stand in it.
    """

    def __init__(self, calls: ChatParser) -> None:
        self._inner: ChatParser | None = None
        self._calls = calls
        self._held = ""

    @property
    @override
    def is_reasoning(self) -> bool:
        return False

    @property
    @override
    def openings(self) -> Sequence[str]:
        return self._calls.openings

    @override
    def feed(self, text: str) -> Sequence[Piece]:
        if self._inner is not None:
            return self._inner.feed(text)
        self._held += text
        seen = self._held.lstrip()
        if any(seen.startswith(opening) for opening in self._calls.openings):
            return self._begin(self._calls)
        if any(opening.startswith(seen) for opening in self._calls.openings):
            return ()
        return self._begin(PlainParser())

    @override
    def finish(self, *, is_cut: bool = False) -> Sequence[Piece]:
        begun = [] if self._inner is not None else self._begin(PlainParser())
        assert self._inner is not None
        return [*begun, *self._inner.finish(is_cut=is_cut)]

    def _begin(self, inner: ChatParser) -> Sequence[Piece]:
        self._inner, held, self._held = inner, self._held, ""
        return inner.feed(held)
