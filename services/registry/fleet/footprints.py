"""How much memory a model takes and how long its load lasts: learned, else guessed.

Both are learned from loads. Until the first one, the catalogue's figure counts, or the size of the
files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from services.registry.catalogue.profile import Profile
from services.registry.fleet.records import StoredModel

# Weights on disk to memory in use: cache, activations and the engine's own buffers come on top.
_FILE_FACTOR: Final = 1.2
# Working buffers of a load, beside weights and cache.
_BUFFER_BYTES: Final = 32 << 20
# Of a cache, against fp16.
_CACHE_WIDTHS: Final[Mapping[str, float]] = MappingProxyType({"q8": 17 / 32, "q4": 9 / 32})
# What a load that ran out of memory says: at least this much more than what was free.
_SHORTFALL: Final = 1.05
# Share of the newest load in the learned seconds.
_NEWEST: Final = 0.4
# A cold disk, and the start of a worker: only until the first load has taught better.
_GUESSED_BYTES_PER_SECOND: Final = 300e6
_GUESSED_START_SECONDS: Final = 3.0
# Records kept; the longest unused goes first.
_MOST_RECORDS: Final = 20_000


@dataclasses.dataclass(frozen=True, slots=True)
class Footprint:
    """How much memory a model needs.

    Attributes:
        total_bytes: over all devices; 0 where nothing is known.
        source: `learned`, `catalogue`, `files and cache`, `file size` or `unknown`.
        most_on_one_device: what the fullest device took, where that was learned; else 0.
        devices: on how many devices that was.
    """

    total_bytes: int
    source: str
    most_on_one_device: int = 0
    devices: int = 0

    def per_device(self, count: int) -> int:
        """Bytes that each of `count` devices must have free."""
        if self.most_on_one_device and self.devices == count:
            return self.most_on_one_device
        return -(-self.total_bytes // count)


@dataclasses.dataclass(frozen=True, slots=True)
class Learned:
    """What was learned from loads of one model, on one neuron or on any.

    Attributes:
        total_bytes: measured by the newest load, or the least that an out-of-memory proves.
        seconds: moving mean of load times; 0 where none has finished.
    """

    total_bytes: int = 0
    most_on_one_device: int = 0
    devices: int = 0
    seconds: float = 0.0
    loads: int = 0


class Footprints:
    """Learned records by key; `key_of` makes the keys, which are also the store's."""

    def __init__(self, records: Mapping[str, Learned] | None = None) -> None:
        self._records: dict[str, Learned] = dict(records or {})

    def footprint(self, profile: Profile, stored: StoredModel | None = None) -> Footprint:
        """How much memory a model needs, by the best figure there is.

        Args:
            profile: the model.
            stored: its weights on some disk of the fleet; None if none has it.
        """
        learned = self._records.get(key_of(profile))
        if learned is not None and learned.total_bytes:
            return Footprint(
                learned.total_bytes, "learned", learned.most_on_one_device, learned.devices
            )
        if profile.device_memory_bytes or profile.memory_bytes:
            spread = profile.device_memory_bytes * profile.devices
            return Footprint(
                max(profile.memory_bytes, spread),
                "catalogue",
                profile.device_memory_bytes,
                profile.devices,
            )
        if stored is not None and (cache := _cache_bytes(profile, stored)):
            return Footprint(stored.size_bytes + cache + _BUFFER_BYTES, "files and cache")
        if stored is not None and stored.size_bytes:
            return Footprint(round(stored.size_bytes * _FILE_FACTOR), "file size")
        return Footprint(0, "unknown")

    def seconds(self, profile: Profile, neuron: str, total_bytes: int) -> float:
        """Expected load time on a neuron: learned there, learned anywhere, or guessed by size."""
        for key in (key_of(profile, neuron), key_of(profile)):
            learned = self._records.get(key)
            if learned is not None and learned.seconds:
                return learned.seconds
        return _GUESSED_START_SECONDS + total_bytes / _GUESSED_BYTES_PER_SECOND

    def observe(
        self, profile: Profile, neuron: str, memory: Mapping[str, int], seconds: float
    ) -> dict[str, Learned]:
        """Learns from a load that ended well.

        Returns: the records that changed, for the store.
        """
        total = sum(memory.values())
        most = max(memory.values(), default=0)
        changed: dict[str, Learned] = {}
        for key in (key_of(profile), key_of(profile, neuron)):
            old = self._records.pop(key, Learned())
            mean = seconds if not old.seconds else old.seconds + _NEWEST * (seconds - old.seconds)
            changed[key] = Learned(
                total or old.total_bytes,
                most or old.most_on_one_device,
                len(memory) or old.devices,
                mean,
                old.loads + 1,
            )
        self._records.update(changed)
        self._trim()
        return changed

    def ran_out(
        self, profile: Profile, devices: int, free_bytes: int, capacity_bytes: int
    ) -> dict[str, Learned]:
        """Learns from a load that ran out of memory: the model needs more than what was free.

        Never more than the devices have: something else may have taken the memory meanwhile, and
        one such accident must not make a model impossible for good.

        Args:
            profile: the model.
            devices: how many it was spread over.
            free_bytes: on them, when the load began.
            capacity_bytes: of them, when nothing is loaded.

        Returns: the records that changed, for the store.
        """
        key = key_of(profile)
        old = self._records.pop(key, Learned())
        total = min(max(old.total_bytes, round(free_bytes * _SHORTFALL)), capacity_bytes)
        changed = {key: dataclasses.replace(
            old, total_bytes=total, most_on_one_device=0, devices=devices
        )}  # fmt: skip
        self._records.update(changed)
        self._trim()
        return changed

    def _trim(self) -> None:
        while len(self._records) > _MOST_RECORDS:
            del self._records[next(iter(self._records))]


def _cache_bytes(profile: Profile, stored: StoredModel) -> int:
    """Least that the cache of a load takes; 0 where that is not known.

    One sequence where their number is left open: more are made only where there is room.
    """
    terms = profile.terms
    if stored.format != "gguf" or not stored.max_context_tokens:
        return 0
    tokens = stored.default_cache_tokens
    if terms.max_context_tokens or terms.max_sequences:
        context = terms.max_context_tokens or tokens
        tokens = min(context, stored.max_context_tokens) * (terms.max_sequences or 1)
    if terms.cache_tokens:
        tokens = min(tokens, terms.cache_tokens)
    width = _CACHE_WIDTHS.get(terms.cache_format, 1.0)
    return round(tokens * stored.cache_bytes_per_token * width)


def key_of(profile: Profile, neuron: str = "") -> str:
    """The record's key: another revision of a model is another record."""
    return f"{profile.model}@{profile.revision:x}@{neuron}"
