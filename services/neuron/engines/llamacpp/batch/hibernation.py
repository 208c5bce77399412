"""Sequences of a llama.cpp context that outlive it."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from services.neuron.engines.common.kv_store.hibernation import Hibernation, Kept, Savable
from services.neuron.engines.common.kv_store.sequence_file import SavedSequence
from services.neuron.engines.common.kv_store.store import SavedEntry
from services.neuron.engines.llamacpp.batch.context import Context
from services.neuron.engines.llamacpp.batch.slots import CacheSlot, Checkpoint


class SlotHibernation(Hibernation):
    """Saves the sequences of one context, and brings them back.

    Args:
        context: whose they are.
        kept: where, and which.
    """

    def __init__(self, context: Context, kept: Kept) -> None:
        super().__init__(kept)
        self._context = context

    def save_slots(self, slots: Sequence[CacheSlot]) -> tuple[int, int]:
        """Saves what the slots hold; see `save`."""
        if self._context.has_copies_to_make:
            return 0, 0
        return self.save(self._savable(slot) for slot in slots)

    @override
    def better(self, prompt: Sequence[int], scope: str, *, than: int) -> SavedEntry | None:
        """Finds a better saved sequence; None while copies within the context are to be made."""
        if self._context.has_copies_to_make:
            return None
        return super().better(prompt, scope, than=than)

    @override
    def useful(self, entry: SavedEntry, common: int) -> int:
        """The same, down to the last checkpoint where the model's cache cannot be cut anywhere."""
        if not self._context.needs_checkpoints or common == len(entry.tokens):
            return common
        return max((length for length in entry.checkpoint_lengths if length <= common), default=0)

    def restore(self, entry: SavedEntry, slot: CacheSlot) -> bool:
        """Makes a slot hold a saved sequence; False, and an empty slot, where it cannot be had."""
        slot.cut(0)
        self._context.cut(slot.index, 0)

        def into_slot(sequence: SavedSequence) -> bool:
            if not self._context.restore(slot.index, sequence.state):
                return False
            slot.tokens = sequence.tokens.tolist()
            slot.marks = list(sequence.marks)
            slot.checkpoints = [Checkpoint(length, state) for length, state in sequence.checkpoints]
            return True

        return self._bring_back(entry, into_slot)

    def _savable(self, slot: CacheSlot) -> Savable:
        def copy(most_bytes: int) -> SavedSequence | None:
            return slot.saved(self._context.save(slot.index, most_bytes=most_bytes))

        return Savable(slot.scope, slot.tokens, copy)
