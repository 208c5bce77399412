"""Sequences that outlive their model: saved when it goes, restored when a prompt begins alike.

What does not depend on the engine: which are saved, which is worth restoring, and how fast both go.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import psutil

from services.neuron.engine_api.cache import HeldPrefix
from services.neuron.engine_api.model import KvStorePlan, LoadFailed
from services.neuron.engines.common.kv_store.prefix import Tokens, common_prefix
from services.neuron.engines.common.kv_store.sealing import read_key
from services.neuron.engines.common.kv_store.sequence_file import SavedSequence
from services.neuron.engines.common.kv_store.store import KvStore, SavedEntry, Tier

LEAST_TOKENS: Final = 128
"""Shorter sequences are read about as fast as they are restored."""
WORTH_TOKENS: Final = 32
"""So many tokens more than without it a saved sequence spares, or it is not restored."""
MOST_SECONDS: Final = 5.0
"""An unload waits no longer for what is saved before it."""
MOST_RESTORE_SECONDS: Final = 2.0
"""A file that cannot be read in that time is left, and its prompt read."""
_SPARE_SHARE: Final = 0.25
"""Of the host's free memory, the largest sequence that is saved: there are two copies of it, and a
third where its file is in memory."""
_GUESSED_RATE: Final = 200.0
"""Tokens read per second, of a model that has read nothing yet."""
_REMEMBERED_TOKENS: Final = 100_000
"""The speed of reading is that of about so many tokens read last."""
_GUESSED_BYTES_PER_SECOND: Final = 500e6
"""Restored from a file, before any was."""


@dataclasses.dataclass(frozen=True, slots=True)
class Savable:
    """A sequence in the cache, and how to copy it out.

    Attributes:
        scope: whose it is.
        tokens: what it holds.
        copy: makes the copy, of at most so many bytes; None where it would be larger, or failed.
    """

    scope: str
    tokens: Tokens
    copy: Callable[[int], SavedSequence | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """Which sequences may be saved, and where: the load plan's share of `[neuron.kv_store]`.

    Attributes:
        store: None: nothing.
        keeps_named: also what callers with a name have sent, not only anonymous ones.
        most_bytes: most that one sequence may take.
    """

    store: KvStore | None = None
    keeps_named: bool = False
    most_bytes: int = 0


class Hibernation:
    """Decides which sequences of a model are saved and which are restored; the engine copies.

    Args:
        kept: where, and which.
    """

    def __init__(self, kept: Kept) -> None:
        self._store = kept.store
        self._keeps_named = kept.keeps_named
        self._most_bytes = kept.most_bytes
        self._read_tokens = 0.0
        self._read_seconds = 0.0
        self._restored_bytes_per_second = _GUESSED_BYTES_PER_SECOND

    @property
    def tokens_per_second(self) -> float:
        """Measured speed of reading prompts; a guess before enough was read."""
        if self._read_tokens < LEAST_TOKENS or self._read_seconds <= 0:
            return _GUESSED_RATE
        return self._read_tokens / self._read_seconds

    def note_reading(self, tokens: int, seconds: float) -> None:
        """Records the speed of a prompt: tokens that were not cached, and seconds."""
        if self._read_tokens > _REMEMBERED_TOKENS:
            self._read_tokens /= 2
            self._read_seconds /= 2
        self._read_tokens += tokens
        self._read_seconds += seconds

    def save(self, sequences: Iterable[Savable]) -> tuple[int, int]:
        """Saves sequences, the longest first, for at most `MOST_SECONDS`.

        Returns: how many are kept, and their bytes.

        Raises:
            OSError: the store cannot be written.
        """
        store, began_at = self._store, time.monotonic()
        count = size = 0
        if store is None:
            return count, size
        for one in sorted(sequences, key=lambda one: len(one.tokens), reverse=True):
            if len(one.tokens) < LEAST_TOKENS or time.monotonic() - began_at > MOST_SECONDS:
                break
            if not self._is_kept(one.scope):
                continue
            spare = int(psutil.virtual_memory().available * _SPARE_SHARE)
            sequence = one.copy(min(self._most_bytes, spare))
            if sequence is None:
                continue
            seconds = len(sequence.tokens) / self.tokens_per_second
            if store.put(one.scope, sequence, seconds=seconds):
                count, size = count + 1, size + sequence.size_bytes
        return count, size

    def better(self, prompt: Sequence[int], scope: str, *, than: int) -> SavedEntry | None:
        """The saved sequence that spares the most reading; None where none is worth it.

        Args:
            prompt: the whole prompt; its last token is read in any case.
            scope: whose it is.
            than: tokens of it that need not be read without any.
        """
        if self._store is None or not self._is_kept(scope):
            return None
        if len(prompt) <= max(than + WORTH_TOKENS, LEAST_TOKENS):
            return None
        best, most = None, than + WORTH_TOKENS
        # Once, not for each entry: every other stream of the model waits meanwhile.
        wanted = np.asarray(prompt, dtype=np.int32)
        for entry in self._store.entries(scope):
            useful = self.useful(entry, min(common_prefix(entry.tokens, wanted), len(prompt) - 1))
            if useful > most:
                best, most = entry, useful
        return best

    def useful(self, entry: SavedEntry, common: int) -> int:
        """How many of the first `common` tokens of a saved sequence can be restored."""
        return common

    def held(self) -> Iterator[HeldPrefix]:
        """The named beginnings of prompts that saved sequences hold."""
        if self._store is None:
            return
        for entry in self._store.all_entries():
            seconds = entry.size_bytes / self._restored_bytes_per_second
            for length, digest in entry.marks:
                tokens = self.useful(entry, length)
                if tokens >= LEAST_TOKENS:
                    yield HeldPrefix(digest, tokens, seconds)

    def _bring_back(self, entry: SavedEntry, restore: Callable[[SavedSequence], bool]) -> bool:
        """Reads a saved sequence and puts it into the cache; False where it cannot be had.

        Args:
            entry: which.
            restore: puts it there.
        """
        assert self._store is not None
        began_at = time.monotonic()
        # All streams of the model wait meanwhile, and reading the prompt would not take longer.
        reading = len(entry.tokens) / self.tokens_per_second
        sequence = self._store.read(entry, seconds=min(MOST_RESTORE_SECONDS, reading))
        if sequence is None or not np.array_equal(sequence.tokens, entry.tokens):
            return False
        if not restore(sequence):
            return False
        seconds = max(time.monotonic() - began_at, 1e-6)
        self._restored_bytes_per_second = sequence.size_bytes / seconds
        return True

    def _is_kept(self, scope: str) -> bool:
        return not scope or self._keeps_named


def kept_by(plan: KvStorePlan | None, *, identity: str) -> Kept:
    """Opens the store of a plan.

    Args:
        plan: None: nothing is saved.
        identity: what a state depends on beside the files of the model: engine, build, format.

    Raises:
        LoadFailed: the key that it is to be encrypted with cannot be read.
    """
    if plan is None:
        return Kept()
    try:
        key = read_key(pathlib.Path(plan.key_file)) if plan.key_file else None
    except OSError as error:
        raise LoadFailed("LOAD_FAILED", f"neuron.kv_store.key_file: {error}") from error
    tiers = [Tier(pathlib.Path(tier.folder), tier.most_bytes) for tier in plan.tiers]
    return Kept(
        KvStore(tiers, identity=f"{identity} {plan.fingerprint}", key=key),
        plan.keeps_named,
        max((tier.most_bytes for tier in tiers), default=0),
    )
