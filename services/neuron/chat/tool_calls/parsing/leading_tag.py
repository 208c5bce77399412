"""Takes one marker off the beginning of an output, where it is there."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from services.neuron.chat.stream import ChatParser, Piece


class LeadingTagParser(ChatParser):
    """Hands everything behind an optional leading marker to another parser."""

    def __init__(self, tag: str, inner: ChatParser, *, tagged: ChatParser | None = None) -> None:
        """Begins an output.

        Args:
            tag: the marker.
            inner: reads the output.
            tagged: reads what stands behind the marker; by default the same.
        """
        self._tag, self._inner, self._tagged = tag, inner, tagged or inner
        self._held: str | None = ""

    @property
    @override
    def is_reasoning(self) -> bool:
        return self._inner.is_reasoning

    @property
    @override
    def openings(self) -> Sequence[str]:
        return [self._tag, *self._inner.openings]

    @override
    def feed(self, text: str) -> Sequence[Piece]:
        if self._held is None:
            return self._inner.feed(text)
        self._held += text
        seen = self._held.lstrip()
        if self._tag.startswith(seen) and self._tag != seen:
            return ()
        if not seen.startswith(self._tag):
            return self._go_on(self._held)
        self._inner = self._tagged
        return self._go_on(seen[len(self._tag) :])

    @override
    def finish(self, *, is_cut: bool = False) -> Sequence[Piece]:
        if self._held is None:
            return self._inner.finish(is_cut=is_cut)
        return [*self._go_on(self._held), *self._inner.finish(is_cut=is_cut)]

    def _go_on(self, rest: str) -> Sequence[Piece]:
        self._held = None
        return self._inner.feed(rest) if rest else ()
