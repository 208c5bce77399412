"""Which sequences the pages of the cache hold: whose, and with which named beginnings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from services.neuron.engines.common.marks import Mark, with_mark
from services.neuron.engines.exllamav2.model.sizing import PAGE
from services.neuron.engines.exllamav2.paging.index import Held, PageIndex, digests

MOST_SEQUENCES: Final = 256
"""Of one model; beyond it the one that was noted longest ago is forgotten."""


@dataclasses.dataclass(slots=True, eq=False)
class PagedSequence:
    """A sequence of tokens that was computed into pages.

    Attributes:
        scope: whose they are.
        tokens: in order, pictures and what is behind them left out.
        marks: names of its beginnings.
        digests: of its whole pages.
        held: how many of its first tokens are still there.
    """

    scope: str
    tokens: list[int]
    marks: list[Mark]
    digests: list[bytes]
    held: int = 0


class Sequences:
    """The sequences of one model, the newest last.

    Args:
        vocabulary_size: ids from here on are a picture's, for the life of its embedding alone.
    """

    def __init__(self, vocabulary_size: int) -> None:
        self._vocabulary_size = vocabulary_size
        self._all: list[PagedSequence] = []
        self._changes = 0
        self._seen: tuple[int, int, int] | None = None

    def note(self, scope: str, tokens: Sequence[int], marks: Sequence[Mark]) -> None:
        """Notes what the cache holds of a sequence now.

        It takes the place of its beginnings, and one that is a beginning of another adds its names.
        """
        known = self._known(tokens)
        made = PagedSequence(scope, known, [], digests(known, scope))
        one = next((other for other in self._all if _is_one(other, made)), None)
        if one is None:
            one = made
        else:
            self._all.remove(one)
            if len(one.tokens) < len(known):
                one.tokens, one.digests = known, made.digests
        for mark in marks:
            one.marks = with_mark(one.marks, mark)
        self._all.append(one)
        del self._all[:-MOST_SEQUENCES]
        self._changes += 1

    def clear(self) -> None:
        """Forgets all sequences: the pages are empty."""
        self._all.clear()
        self._changes += 1

    def current(self, generator: Any) -> list[PagedSequence]:
        """The sequences of which something is still in the cache."""
        seen = (id(generator), int(generator.access_serial), self._changes)
        if seen != self._seen:
            self._seen = seen
            index = PageIndex(generator)
            for one in self._all:
                one.held = sum(held.tokens for held in pages_of(one, index))
            self._all = [one for one in self._all if one.held]
        return self._all

    def _known(self, tokens: Sequence[int]) -> list[int]:
        """The tokens before the first picture."""
        size = self._vocabulary_size
        end = next((at for at, token in enumerate(tokens) if token >= size), len(tokens))
        return list(tokens[:end])


def _is_one(known: PagedSequence, made: PagedSequence) -> bool:
    """One of the two is the beginning of the other."""
    pages = min(len(known.digests), len(made.digests))
    if pages and known.digests[pages - 1] != made.digests[pages - 1]:
        return False  # what is left is less than a page
    end = min(len(known.tokens), len(made.tokens))
    begin = pages * PAGE
    return known.scope == made.scope and known.tokens[begin:end] == made.tokens[begin:end]


def pages_of(sequence: PagedSequence, index: PageIndex) -> list[Held]:
    """Where a sequence's beginning lies, as far as it is there."""
    return index.held(sequence.tokens, sequence.scope, sequence.digests)
