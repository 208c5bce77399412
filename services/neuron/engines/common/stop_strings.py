"""Finds stop strings in a stream of text and holds back what may become one."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Watches for the first place where any of the stop strings ends.

    Of several that end at the same place the longest wins. The outcome does not depend on how the
    text is cut into pieces.
    """

    def __init__(self, strings: Sequence[str], *, include: bool = False) -> None:
        """Prepares the search.

        Args:
            strings: what ends the text; empty strings are ignored.
            include: the stop string itself is part of the text that comes out.
        """
        self._strings = tuple(string for string in strings if string)
        self._include = include
        self._prefixes = frozenset(
            string[:length] for string in self._strings for length in range(1, len(string))
        )
        self._longest_prefix = max((len(string) - 1 for string in self._strings), default=0)
        self._held = ""

    def feed(self, text: str) -> tuple[str, str | None]:
        """Takes more text.

        Returns: the text that may be shown now, and the stop string that was met or None. After a
            stop string nothing more may be fed.
        """
        if not self._strings:
            return text, None
        self._held += text
        found = self._first_match()
        if found is None:
            return self._release(keep=self._length_to_hold()), None
        start, string = found
        end = start + len(string) if self._include else start
        shown, self._held = self._held[:end], ""
        return shown, string

    def finish(self) -> str:
        """What was held back and has not become a stop string."""
        return self._release(keep=0)

    def _release(self, *, keep: int) -> str:
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def _first_match(self) -> tuple[int, str] | None:
        best: tuple[int, int, str] | None = None
        for string in self._strings:
            start = self._held.find(string)
            if start < 0:
                continue
            rank = (start + len(string), start, string)
            if best is None or rank < best:
                best = rank
        return None if best is None else (best[1], best[2])

    def _length_to_hold(self) -> int:
        for length in range(min(self._longest_prefix, len(self._held)), 0, -1):
            if self._held[-length:] in self._prefixes:
                return length
        return 0
