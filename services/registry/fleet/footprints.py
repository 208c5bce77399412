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
from services.registry.fleet.records import CPU, Instance, StoredModel

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
# Share of the files in the page cache from which on a load is one from memory.
_RESIDENT: Final = 0.9
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
        host_bytes: part of the total that is in the host's memory where the model is on GPUs.
        layers: that GPUs can take some of, and the host the rest; 0: all or none.
        is_for_host: no GPU takes any of it.
    """

    total_bytes: int
    source: str
    most_on_one_device: int = 0
    devices: int = 0
    _: dataclasses.KW_ONLY
    host_bytes: int = 0
    layers: int = 0
    is_for_host: bool = False

    @property
    def gpu_bytes(self) -> int:
        """On all GPUs together, where the whole model is on GPUs."""
        return self.total_bytes - self.host_bytes

    def per_device(self, count: int) -> int:
        """Bytes that each of `count` devices must have free."""
        if self.most_on_one_device and self.devices == count:
            return self.most_on_one_device
        return -(-self.gpu_bytes // count)

    def with_total(self, total_bytes: int, source: str) -> Footprint:
        """The same with another total, divided between GPUs and host in the same proportion."""
        share = self.host_bytes / self.total_bytes if self.total_bytes else 0.0
        return Footprint(
            total_bytes,
            source,
            host_bytes=round(total_bytes * share),
            layers=self.layers,
            is_for_host=self.is_for_host,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Learned:
    """What was learned from loads of one model, on one neuron or on any.

    Attributes:
        total_bytes: measured by the newest load, or the least that an out-of-memory proves.
        most_on_one_device, devices, host_bytes: of the newest load that put all of its layers on
            GPUs; 0 where none did.
        seconds: moving mean of the times of loads from the disk; 0 where none has finished.
        seconds_from_memory: likewise of files that were in the page cache.
    """

    total_bytes: int = 0
    most_on_one_device: int = 0
    devices: int = 0
    seconds: float = 0.0
    loads: int = 0
    host_bytes: int = 0
    seconds_from_memory: float = 0.0

    def timed(self, seconds: float, *, is_from_memory: bool) -> Learned:
        """What is learned with one more load, which took `seconds`."""
        if is_from_memory:
            mean = _mean(self.seconds_from_memory, seconds)
            return dataclasses.replace(self, loads=self.loads + 1, seconds_from_memory=mean)
        mean = _mean(self.seconds, seconds)
        return dataclasses.replace(self, loads=self.loads + 1, seconds=mean)


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
        guess = _guessed(profile, stored)
        learned = self._records.get(key_of(profile))
        if learned is None or not learned.total_bytes:
            return guess
        if not learned.devices:
            return guess.with_total(learned.total_bytes, "learned")
        return Footprint(
            learned.total_bytes,
            "learned",
            learned.most_on_one_device,
            learned.devices,
            host_bytes=learned.host_bytes,
            layers=guess.layers,
            is_for_host=guess.is_for_host,
        )

    def seconds(
        self, profile: Profile, neuron: str, total_bytes: int, *, resident: float = 0.0
    ) -> float:
        """Expected load time on a neuron: learned there, learned anywhere, or guessed by size.

        Loads from the disk and from the page cache are learned apart, and what is partly there is
        expected to take a time between. Where only one was learned, the guess of the other leaves
        the reading out or puts it in, and none from the disk is faster than one from memory.

        Args:
            profile: the model.
            neuron: where.
            total_bytes: that are to be loaded.
            resident: share of its files that is in the page cache there.
        """
        here, anywhere = (
            self._records.get(key, Learned()) for key in (key_of(profile, neuron), key_of(profile))
        )
        from_disk = here.seconds or anywhere.seconds
        from_memory = here.seconds_from_memory or anywhere.seconds_from_memory
        reading = total_bytes / _GUESSED_BYTES_PER_SECOND
        if not from_disk:
            from_disk = max(_GUESSED_START_SECONDS + reading, from_memory)
        if not from_memory:
            from_memory = max(from_disk - reading, min(_GUESSED_START_SECONDS, from_disk))
        return from_disk + (from_memory - from_disk) * resident

    def observe(
        self,
        profile: Profile,
        neuron: str,
        instance: Instance,
        seconds: float,
        *,
        resident: float = 0.0,
    ) -> dict[str, Learned]:
        """Learns from a load that ended well.

        How it is divided is learned of a whole load alone: another neuron may have room for all.

        Args:
            profile: the model.
            neuron: where it was loaded.
            instance: that it became.
            seconds: that the load took.
            resident: share of its files that was in the page cache when the load began.

        Returns: the records that changed, for the store.
        """
        memory = instance.memory
        total = sum(memory.values())
        on_gpus = {name: held for name, held in memory.items() if name != CPU}
        changed: dict[str, Learned] = {}
        for key in (key_of(profile), key_of(profile, neuron)):
            old = self._records.pop(key, Learned())
            new = old.timed(seconds, is_from_memory=resident >= _RESIDENT)
            if on_gpus and not instance.layers_left:
                new = dataclasses.replace(
                    new,
                    total_bytes=total or old.total_bytes,
                    most_on_one_device=max(on_gpus.values()),
                    devices=len(on_gpus),
                    host_bytes=memory.get(CPU, 0),
                )
            elif total:
                new = dataclasses.replace(
                    new, total_bytes=total, most_on_one_device=0, devices=0, host_bytes=0
                )
            changed[key] = new
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
            old, total_bytes=total, most_on_one_device=0, devices=devices, host_bytes=0
        )}  # fmt: skip
        self._records.update(changed)
        self._trim()
        return changed

    def _trim(self) -> None:
        while len(self._records) > _MOST_RECORDS:
            del self._records[next(iter(self._records))]


def _mean(old: float, newest: float) -> float:
    return newest if not old else old + _NEWEST * (newest - old)


def _guessed(profile: Profile, stored: StoredModel | None) -> Footprint:
    """What is said of a model before it was ever loaded."""
    layers = stored.gpu_layers if stored is not None else None
    most = layers.most if layers is not None else 0
    is_for_host = layers is not None and not most
    if profile.device_memory_bytes or profile.memory_bytes:
        spread = profile.device_memory_bytes * profile.devices
        return Footprint(
            max(profile.memory_bytes, spread),
            "catalogue",
            profile.device_memory_bytes,
            profile.devices,
            layers=most,
            is_for_host=is_for_host,
        )
    if stored is None or not stored.size_bytes:
        return Footprint(0, "unknown")
    cache = _cache_bytes(profile, stored)
    if not cache:
        total = round(stored.size_bytes * _FILE_FACTOR)
        return Footprint(total, "file size", layers=most, is_for_host=is_for_host)
    if layers is None or is_for_host:
        total = stored.size_bytes + cache + _BUFFER_BYTES
        return Footprint(total, "files and cache", is_for_host=is_for_host)
    beside = cache * (layers.all - most) // layers.all  # of layers that are never on GPUs
    total = layers.gpu_bytes + layers.host_bytes + cache + _BUFFER_BYTES
    return Footprint(total, "files and cache", host_bytes=layers.host_bytes + beside, layers=most)


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
