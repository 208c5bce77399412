"""Sequences that outlive their model: saved when it goes, restored when a prompt begins alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import numpy as np
import psutil

from services.neuron.engines.common.kv_store.prefix import common_prefix
from services.neuron.engines.common.kv_store.store import KvStore, SavedEntry
from services.neuron.engines.llamacpp.batch.context import Context
from services.neuron.engines.llamacpp.batch.slots import COPY_WORTH_TOKENS, CacheSlot, Checkpoint

LEAST_TOKENS: Final = 128
"""Shorter sequences are read about as fast as they are restored."""
MOST_SECONDS: Final = 5.0
"""An unload waits no longer for what is saved before it."""
_SPARE_SHARE: Final = 0.25
"""Of the host's free memory, the largest sequence that is saved: there are two copies of it, and a
third where its file is in memory."""
_GUESSED_RATE: Final = 200.0
"""Tokens read per second, of a model that has read nothing yet."""


class Hibernation:
    """Saves the sequences of one context, and brings them back.

    Args:
        context: whose they are.
        store: None: nothing is saved.
        keeps_named: also those of callers with a name, not only of anonymous ones.
        most_bytes: most that one sequence may take.
    """

    def __init__(
        self, context: Context, store: KvStore | None, *, keeps_named: bool, most_bytes: int
    ) -> None:
        self._context = context
        self._store = store
        self._keeps_named = keeps_named
        self._most_bytes = most_bytes
        self._read_tokens = 0
        self._read_seconds = 0.0

    def note_reading(self, tokens: int, seconds: float) -> None:
        """A prompt was read: so many tokens that were not in the cache, in so long."""
        self._read_tokens += tokens
        self._read_seconds += seconds

    def save(self, slots: Sequence[CacheSlot]) -> tuple[int, int]:
        """Saves what the slots hold, the longest first, as long as `MOST_SECONDS` are not over.

        Returns: how many sequences are kept, and their bytes.

        Raises:
            OSError: the store cannot be written.
        """
        store, began_at = self._store, time.monotonic()
        count = size = 0
        if store is None or self._context.has_copies_to_make:
            return count, size
        for slot in sorted(slots, key=lambda slot: len(slot.tokens), reverse=True):
            if len(slot.tokens) < LEAST_TOKENS or time.monotonic() - began_at > MOST_SECONDS:
                break
            if slot.scope and not self._keeps_named:
                continue
            spare = int(psutil.virtual_memory().available * _SPARE_SHARE)
            most_bytes = min(self._most_bytes, spare)
            sequence = slot.saved(self._context.save(slot.index, most_bytes=most_bytes))
            if sequence is None:
                continue
            seconds = len(slot.tokens) / self._tokens_per_second
            if store.put(slot.scope, sequence, seconds=seconds):
                count, size = count + 1, size + sequence.size_bytes
        return count, size

    def better(self, prompt: Sequence[int], scope: str, *, than: int) -> SavedEntry | None:
        """The saved sequence that spares the most reading; None where none is worth it.

        Args:
            prompt: the whole prompt; its last token is read in any case.
            scope: whose it is.
            than: tokens of it that need not be read without any.
        """
        if self._store is None or self._context.has_copies_to_make:
            return None
        if scope and not self._keeps_named:
            return None
        if len(prompt) <= max(than + COPY_WORTH_TOKENS, LEAST_TOKENS):
            return None
        best, most = None, than + COPY_WORTH_TOKENS
        # Once, not for each entry: every other stream of the model waits meanwhile.
        wanted = np.asarray(prompt, dtype=np.int32)
        for entry in self._store.entries(scope):
            useful = self._useful(entry, min(common_prefix(entry.tokens, wanted), len(prompt) - 1))
            if useful > most:
                best, most = entry, useful
        return best

    def restore(self, entry: SavedEntry, slot: CacheSlot) -> bool:
        """Makes a slot hold a saved sequence; False, and an empty slot, where it cannot be had."""
        assert self._store is not None
        slot.cut(0)
        sequence = self._store.read(entry)
        if sequence is None or not np.array_equal(sequence.tokens, entry.tokens):
            self._context.cut(slot.index, 0)
            return False
        if not self._context.restore(slot.index, sequence.state):
            return False
        slot.tokens = sequence.tokens.tolist()
        slot.checkpoints = [Checkpoint(length, state) for length, state in sequence.checkpoints]
        return True

    @property
    def _tokens_per_second(self) -> float:
        if self._read_tokens < LEAST_TOKENS or self._read_seconds <= 0:
            return _GUESSED_RATE
        return self._read_tokens / self._read_seconds

    def _useful(self, entry: SavedEntry, common: int) -> int:
        """How many first tokens of a sequence can be had once it is restored."""
        if not self._context.needs_checkpoints or common == len(entry.tokens):
            return common
        return max((length for length in entry.checkpoint_lengths if length <= common), default=0)
