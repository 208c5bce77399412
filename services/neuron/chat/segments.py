"""Keeps what users write from becoming control tokens. Pure.

A chat template is rendered over the users' own text, and its result is tokenised. Were a user's
`<|im_end|>` tokenised as the control token, anybody could forge a system turn. So every string that
enters a template is guarded first: inside each control token's spelling, and behind each ending
that another string could complete to one, stands a noncharacter. After rendering only what the
template itself wrote is recognised, and the noncharacters are taken out again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from services.neuron.engine_api.task import Segment

# Unicode noncharacters: never part of interchanged text.
GUARD: Final = "\ufdd0"
END_MARK: Final = "\ufdd1"
_STRIPPED: Final = {ord(GUARD): None, ord(END_MARK): None}


class ControlTokens:
    """The spellings of a model's control tokens."""

    def __init__(self, texts: Iterable[str]) -> None:
        ordered = sorted((text for text in texts if text), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        prefixes = {text[:length] for text in ordered for length in range(1, len(text))}
        self._beginnings = frozenset(prefixes)
        self._longest = max(map(len, ordered), default=0)

    def guard(self, text: str) -> str:
        """The text with every control token in it, or begun at its end, made harmless."""
        if self._pattern is None:
            return text
        guarded = self._pattern.sub(lambda match: match[0][0] + GUARD + match[0][1:], text)
        for length in range(min(self._longest - 1, len(guarded)), 0, -1):
            if guarded[-length:] in self._beginnings:
                return guarded + GUARD
        return guarded

    def guard_all(self, value: Any) -> Any:
        """A JSON-like value with every string in it guarded, keys included."""
        match value:
            case str():
                return self.guard(value)
            case list():
                items: list[Any] = value
                return [self.guard_all(item) for item in items]
            case dict():
                pairs: dict[Any, Any] = value
                return {self.guard_all(key): self.guard_all(item) for key, item in pairs.items()}
            case _:
                return value

    def split(self, rendered: str) -> tuple[Segment, ...]:
        """The rendered prompt as runs of plain text and control tokens, guards removed."""
        if self._pattern is None:
            plain = unguard(rendered)
            return (Segment(plain),) if plain else ()
        segments: list[Segment] = []
        at = 0
        for match in self._pattern.finditer(rendered):
            plain = unguard(rendered[at : match.start()])
            if plain:
                segments.append(Segment(plain))
            segments.append(Segment(match[0], control=True))
            at = match.end()
        plain = unguard(rendered[at:])
        if plain:
            segments.append(Segment(plain))
        return tuple(segments)

    def end_of_last(self, rendered: str) -> int:
        """Where the last control token of a rendered prompt ends; 0 where there is none."""
        end = 0
        if self._pattern is not None:
            for match in self._pattern.finditer(rendered):
                end = match.end()
        return end


def unguard(text: str) -> str:
    """The text without guards and marks."""
    if GUARD in text or END_MARK in text:
        return text.translate(_STRIPPED)
    return text
