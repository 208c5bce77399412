"""Finds stop strings in a stream of text and holds back what may become one."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Watches for the first place where any of the stop strings ends.

    Of several that end at the same place the longest wins. The outcome does not depend on how the
    text is cut into pieces. Time is linear in the text and in the strings (Knuth, Morris and
    Pratt): a caller's strings must not hold up the others' tokens.
    """

    def __init__(self, strings: Sequence[str], *, include: bool = False) -> None:
        """Prepares the search.

        Args:
            strings: what ends the text; empty strings are ignored.
            include: the stop string itself is part of the text that comes out.
        """
        self._patterns = tuple(_Pattern(string) for string in strings if string)
        self._include = include
        self._held = ""

    def feed(self, text: str) -> tuple[str, str | None]:
        """Takes more text.

        Returns: the text that may be shown now, and the stop string that was met or None. After a
            stop string nothing more may be fed.
        """
        if not self._patterns:
            return text, None
        before = len(self._held)
        self._held += text
        first: tuple[int, int, str] | None = None
        for pattern in self._patterns:
            end = pattern.feed(text)
            if end is not None:
                found = (end, -len(pattern.string), pattern.string)
                first = found if first is None else min(first, found)
        if first is None:
            return self._release(keep=max(pattern.matched for pattern in self._patterns)), None
        end, string = before + first[0], first[2]
        shown = self._held[: end if self._include else end - len(string)]
        self._held = ""
        return shown, string

    def finish(self) -> str:
        """What was held back and has not become a stop string."""
        for pattern in self._patterns:
            pattern.matched = 0
        return self._release(keep=0)

    def _release(self, *, keep: int) -> str:
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown


class _Pattern:
    """One stop string and how much of it the text ends with."""

    __slots__ = ("_fallback", "matched", "string")

    def __init__(self, string: str) -> None:
        self.string = string
        self.matched = 0
        # For each prefix: the length of the longest shorter one that it ends with.
        self._fallback = [0] * len(string)
        length = 0
        for at in range(1, len(string)):
            while length and string[at] != string[length]:
                length = self._fallback[length - 1]
            length += string[at] == string[length]
            self._fallback[at] = length

    def feed(self, text: str) -> int | None:
        """Reads on. Returns where in this text the string ends for the first time, or None."""
        string, matched = self.string, self.matched
        if not matched and string[0] not in text:
            return None
        for at, letter in enumerate(text):
            while matched and letter != string[matched]:
                matched = self._fallback[matched - 1]
            matched += letter == string[matched]
            if matched == len(string):
                return at + 1
        self.matched = matched
        return None
