"""All slots of one context: who gets which, and with what of its prompt already read."""

from __future__ import annotations

from collections.abc import Collection

from services.neuron.engines.common.kv_store.prefix import common_prefix
from services.neuron.engines.llamacpp.batch.checkpoints import Checkpoints
from services.neuron.engines.llamacpp.batch.context import Context
from services.neuron.engines.llamacpp.batch.hibernation import SlotHibernation
from services.neuron.engines.llamacpp.batch.intake import Prepared
from services.neuron.engines.llamacpp.batch.slots import CacheSlot, place


class SlotTable:
    """Gives slots out.

    Args:
        context: whose sequences they are.
        slots: all of them.
        checkpoints: states of their first tokens.
        hibernation: sequences that were saved.
        control_ids: ids of control tokens, by which marks are found.
    """

    def __init__(
        self,
        context: Context,
        slots: list[CacheSlot],
        *,
        checkpoints: Checkpoints,
        hibernation: SlotHibernation,
        control_ids: Collection[int],
    ) -> None:
        self._context = context
        self._slots = slots
        self._checkpoints = checkpoints
        self._hibernation = hibernation
        self._control_ids = control_ids
        self._turns = 0

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def used_tokens(self) -> int:
        """Tokens of cache that running tasks hold."""
        return sum(len(slot.tokens) for slot in self._slots if slot.is_busy)

    def take(self, prepared: Prepared) -> CacheSlot:
        """A free slot for a task that is admitted; it holds what need not be read of its prompt.

        1. Only what was read for the same principal is reused: neither counts nor times tell one
           caller what another has asked.
        2. A saved sequence is restored where it spares `COPY_WORTH_TOKENS` more than all slots.
        3. Else it goes as `place` says.
        """
        scope, tokens = prepared.task.principal, prepared.tokens

        def reusable(slot: CacheSlot, common: int) -> int:
            return self._checkpoints.reusable(slot, common) if slot.scope == scope else 0

        # Log probabilities of the prompt come only from reading it.
        is_echoed = prepared.is_echoed
        placement = place(self._slots, tokens, reusable=None if is_echoed else reusable)
        assert placement is not None
        slot, source, cached = placement.slot, placement.source, placement.cached_tokens
        saved = None
        if not is_echoed:
            saved = self._hibernation.better(tokens, scope, than=cached)
        if saved is not None:
            is_back = self._hibernation.restore(saved, slot)
            common = min(common_prefix(slot.tokens, tokens), len(tokens) - 1)
            cached = self._checkpoints.reusable(slot, common) if is_back else 0
        elif source is not None:
            self._context.copy(source.index, slot.index)
            slot.become(source)
        marks = _lasting(slot, tokens, cached)
        self._checkpoints.cut(slot, cached)
        slot.marks = marks
        slot.scope = scope
        for length, name in prepared.marks(self._control_ids):
            slot.mark(length, name)
        return self._given(slot)

    def take_any(self) -> CacheSlot:
        """The free slot that is worth least, for a sequence that is brought back."""
        free = [slot for slot in self._slots if not slot.is_busy]
        return self._given(min(free, key=lambda slot: (bool(slot.tokens), slot.used_at)))

    def hibernate(self) -> tuple[int, int]:
        """Saves what all slots hold; see `Hibernation.save`."""
        return self._hibernation.save_slots(self._slots)

    def _given(self, slot: CacheSlot) -> CacheSlot:
        self._turns += 1
        slot.is_busy, slot.used_at = True, self._turns
        return slot


def _lasting(slot: CacheSlot, prompt: list[int], cached: int) -> list[tuple[int, bytes]]:
    """The marks that a slot still has once a prompt was read behind its first cached tokens.

    Those too that lie in tokens which are read again because the cache cannot be cut there.
    """
    if not cached:
        return []
    length = cached
    if any(mark[0] > cached for mark in slot.marks):
        length = max(cached, common_prefix(slot.tokens, prompt))
    return [mark for mark in slot.marks if mark[0] <= length]
