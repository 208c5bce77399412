"""Which sequence of the cache serves the next task, and what it may reuse of older ones.

Pure. A slot keeps its tokens after its task has ended, as a donor: a later prompt that begins alike
goes on in the same slot, or copies from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from services.neuron.engines.common.kv_store.prefix import common_prefix
from services.neuron.engines.common.kv_store.sequence_file import SavedSequence
from services.neuron.engines.common.marks import Mark, saved_marks, with_mark

COPY_WORTH_TOKENS: Final = 32
"""A copy moves the source's whole cache, which takes about as long as reading so many tokens."""


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a sequence's cache was after its first tokens.

    Attributes:
        length: how many.
        state: what cannot be had by cutting a longer one.
    """

    length: int
    state: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(slots=True)
class CacheSlot:
    """What one sequence of the KV cache holds, and since when it is free.

    Attributes:
        index: the sequence id.
        tokens: what the cache holds, in order.
        is_busy: a task runs in it.
        used_at: when it was last given out, in turns.
        scope: whose tokens they are; nobody else's prompt reuses them.
        checkpoints: of its first tokens, rising; several slots may share one.
        marks: lengths of prompts' beginnings that its tokens are, or will be, with their names.
    """

    index: int
    tokens: list[int] = dataclasses.field(default_factory=list[int])
    is_busy: bool = False
    used_at: int = 0
    scope: str = ""
    checkpoints: list[Checkpoint] = dataclasses.field(default_factory=list[Checkpoint])
    marks: list[Mark] = dataclasses.field(default_factory=list[Mark])

    def cut(self, length: int) -> None:
        """Forgets all tokens but the first `length`."""
        del self.tokens[length:]
        self.checkpoints = [one for one in self.checkpoints if one.length <= length]
        self.marks = [mark for mark in self.marks if mark[0] <= length]

    def mark(self, length: int, name: bytes) -> None:
        """Names the beginning of `length` tokens, which may still have to be read."""
        self.marks = with_mark(self.marks, (length, name))

    def saved(self, state: bytes | None) -> SavedSequence | None:
        """What it holds, for the store; None without the copy of its sequence."""
        if state is None:
            return None
        checkpoints = tuple((one.length, one.state) for one in self.checkpoints)
        told = saved_marks(self.marks, len(self.tokens))
        return SavedSequence(np.asarray(self.tokens, dtype=np.int32), state, checkpoints, told)

    def become(self, other: CacheSlot) -> None:
        """Takes over what another slot holds, whose cache was copied into this one."""
        self.tokens = list(other.tokens)
        self.checkpoints = list(other.checkpoints)
        self.marks = list(other.marks)


@dataclasses.dataclass(frozen=True, slots=True)
class SlotChoice:
    """The slot that a task gets, and how much of its prompt is in there already.

    Attributes:
        slot: the free slot that it gets.
        cached_tokens: how many of its first tokens need not be read again.
        source: the slot to copy them from; None where they lie in `slot` already.
    """

    slot: CacheSlot
    cached_tokens: int
    source: CacheSlot | None


Reusable = Callable[[CacheSlot, int], int]
"""How many of a slot's first tokens can be reused, where so many are the prompt's."""


def place(
    slots: Sequence[CacheSlot], prompt: Sequence[int], *, reusable: Reusable | None
) -> SlotChoice | None:
    """Chooses a free slot for a prompt, or None where all are busy.

    1. The victim is the free slot worth least: an empty one, else the one used longest ago.
    2. Where prefixes cannot be shared, the prompt is read anew in the victim.
    3. The source is the slot, busy or free, with most of the prompt's beginning to reuse.
    4. A free source is continued in place if at least half of what it holds is of use, or if it
       is the victim anyway.
    5. Else the victim gets a copy of the source's prefix, if that spares at least
       `COPY_WORTH_TOKENS` tokens of reading.
    6. Else the victim is used, with what it has of the prompt itself.

    Args:
        slots: all of them.
        prompt: the whole prompt; its last token is always read again, for its logits.
        reusable: what a slot's cache can be cut back to; None where nothing may be reused.
    """
    free = [slot for slot in slots if not slot.is_busy]
    if not free:
        return None
    victim = min(free, key=lambda slot: (bool(slot.tokens), slot.used_at, slot.index))
    if reusable is None:
        return SlotChoice(victim, 0, None)
    most = len(prompt) - 1
    lengths = {
        slot.index: reusable(slot, min(common_prefix(slot.tokens, prompt), most)) for slot in slots
    }
    source = max(slots, key=lambda slot: (lengths[slot.index], not slot.is_busy, -slot.index))
    common = lengths[source.index]
    is_continued = common * 2 >= len(source.tokens) or source is victim
    if common and not source.is_busy and is_continued:
        return SlotChoice(source, common, None)
    if common - lengths[victim.index] >= COPY_WORTH_TOKENS:
        return SlotChoice(victim, common, source)
    return SlotChoice(victim, lengths[victim.index], None)
