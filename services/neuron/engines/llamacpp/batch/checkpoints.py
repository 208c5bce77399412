"""States of sequences whose cache cannot be cut back: recurrent layers, and sliding windows.

Such a cache holds what came last, not every token. What it was at some places of a prompt is kept
in the host's memory, without the part that can be cut (`LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY`), so
that a later prompt that begins alike goes on from there.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Sequence
from typing import Final

from services.neuron.engines.llamacpp.batch.context import Context
from services.neuron.engines.llamacpp.batch.slots import COPY_WORTH_TOKENS, CacheSlot, Checkpoint

SPACING_TOKENS: Final = 1024
"""So many tokens lie between two states of a long prompt, at most twice as many."""
MOST_BYTES: Final = 512 << 20
"""Of all states of one model together."""


def places(prompt: Sequence[int], control_ids: Collection[int], *, after: int) -> list[int]:
    """After how many tokens of a prompt its state is kept, rising.

    1. Before the last control token: there the answer's turn opens. A later turn of the chat has
       all of the prompt before it, also where the template drops the reasoning of older turns.
       Where there is none, before the last token, which is always read again.
    2. At the end of the first message, mostly the system's, which other chats share.
    3. Between them before a control token every `SPACING_TOKENS`, in a message twice as long
       within it.
    4. Nothing shorter than `COPY_WORTH_TOKENS` is worth it.

    Args:
        prompt: its tokens.
        control_ids: ids of control tokens.
        after: tokens that are in the cache already.
    """
    turns = [at for at, token in enumerate(prompt) if token in control_ids]
    turns = turns[bisect.bisect_left(turns, COPY_WORTH_TOKENS) :]
    last = turns[-1] if turns else len(prompt) - 1
    if last < COPY_WORTH_TOKENS:
        return []
    found = [turns[0] if turns and turns[0] - COPY_WORTH_TOKENS < SPACING_TOKENS else 0]
    while found[-1] + SPACING_TOKENS < last:
        due = found[-1] + SPACING_TOKENS
        at = bisect.bisect_left(turns, due)
        found.append(min(turns[at] if at < len(turns) else last, due + SPACING_TOKENS, last))
    return sorted({at for at in (*found, last) if at > max(after, 0)})


class Checkpoints:
    """Copies of a sequence's state at earlier lengths, for models whose cache cannot be cut back.

    Bound: `most_bytes`. Beyond it, the slot used longest ago gives up the state that leaves the
    smallest gap, its last one after all others.
    """

    def __init__(
        self, context: Context, slots: Sequence[CacheSlot], *, most_bytes: int = MOST_BYTES
    ) -> None:
        self._context = context
        self._slots = slots
        self._most_bytes = most_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes of all checkpoints; one shared by several slots counts once."""
        return sum({id(one): len(one.state) for s in self._slots for one in s.checkpoints}.values())

    def reusable(self, slot: CacheSlot, common: int) -> int:
        """How many of a slot's first tokens can be reused, where `common` of them match."""
        if not common or self._context.can_cut(slot.index, common):
            return common
        return max((one.length for one in slot.checkpoints if one.length <= common), default=0)

    def take(self, slot: CacheSlot) -> None:
        """Keeps what a slot's cache is now; nothing where there is no room for it."""
        state = self._context.save_part(slot.index, most_bytes=self._most_bytes)
        if state is None:
            return
        while self.held_bytes + len(state) > self._most_bytes:
            self._give_up_one()
        slot.checkpoints.append(Checkpoint(len(slot.tokens), state))

    def cut(self, slot: CacheSlot, length: int) -> bool:
        """Makes a slot hold its first tokens alone, as many as `reusable` said; False: none."""
        kept = next((one for one in slot.checkpoints if one.length == length), None)
        is_there = self._context.can_cut(slot.index, length) or (
            kept is not None and self._context.restore_part(slot.index, kept.state)
        )
        if not is_there or not self._context.cut(slot.index, length):
            self._context.cut(slot.index, 0)
            length = 0
        slot.cut(length)
        return length > 0

    def _give_up_one(self) -> None:
        slot = min((s for s in self._slots if s.checkpoints), key=lambda each: each.used_at)
        lengths = [0, *(one.length for one in slot.checkpoints)]
        gaps = [lengths[at + 1] - lengths[at] for at in range(len(slot.checkpoints) - 1)]
        del slot.checkpoints[gaps.index(min(gaps)) if gaps else 0]
