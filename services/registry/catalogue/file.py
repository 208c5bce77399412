"""The spelling of `models.toml`: one struct per table, and its way into a `Profile`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from services.backplane.units import Bytes, Seconds
from services.registry.catalogue.profile import (
    DEFAULT_CLASS,
    LoadTerms,
    Price,
    Profile,
    SamplingDefaults,
)

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Whole = Annotated[int, msgspec.Meta(ge=0)]
Dollars = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
CapabilityName = Literal["chat", "completion", "embedding", "tools", "reasoning", "vision"]
_SOURCES: Final = ("path:", "package:", "hf:")


class BadEntryError(ValueError):
    """A value that makes no sense."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")


class DevicesEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`devices = { count = 2, max = 4, memory = "20GiB", kind = "cuda" }`."""

    count: Count = 1
    max: Count | None = None
    memory: Bytes = 0
    kind: Literal["", "cpu", "cuda"] = ""


class ReplicasEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`replicas = { min = 1, max = 3 }`."""

    min: Whole = 0
    max: Count | None = None


class LimitsEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`limits = { output = 4096, wait = "5m", sequences = 8 }`."""

    output: Whole = 0
    wait: Seconds = 0.0
    sequences: Whole = 0


class PriceEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`price = { input = 0.15, output = 0.6 }`, US dollars per million tokens."""

    input: Dollars | None = None
    output: Dollars | None = None
    cache_read: Dollars | None = None
    cache_write: Dollars | None = None


class SamplingEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[models.sampling]`: what requests get where they set nothing.

    Ranges are those of the contract's `Sampling`.
    """

    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_p: Share | None = None
    top_k: Whole | None = None
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    typical_p: Share | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[models]]` table. What the keys mean is said in `Profile` and docs/placement.md."""

    id: Name
    source: str = ""
    engine: Literal["", "exllamav2", "llamacpp"] = ""
    quant: str = ""
    memory: Bytes = 0
    devices: Count | DevicesEntry = 1
    context: Whole = 0
    cache_tokens: Whole = 0
    cache_format: Literal["", "fp16", "q8", "q6", "q4"] = ""
    chat_template: str = ""
    adapters: tuple[str, ...] = ()
    draft: str = ""
    ngram_draft: bool = False
    sha256: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""
    embedding: bool = False
    tool_format: str = ""
    reasoning_format: str = ""
    sampling: SamplingEntry = SamplingEntry()
    neurons: tuple[Name, ...] = ()
    labels: dict[str, str] = {}
    affinity: dict[str, str] = {}
    residency_class: int = msgspec.field(name="class", default=DEFAULT_CLASS)
    pin: bool = False
    preload: bool = False
    idle_timeout: Seconds | None = None
    replicas: ReplicasEntry = ReplicasEntry()
    aliases: tuple[Name, ...] = ()
    limits: LimitsEntry = LimitsEntry()
    price: PriceEntry | None = None
    capabilities: tuple[CapabilityName, ...] = ()
    description: str = ""


def to_profile(entry: ModelEntry) -> Profile:
    """The entry with its defaults filled in.

    Raises:
        BadEntryError: a value makes no sense; the message names key and reason.
    """
    devices = entry.devices
    if isinstance(devices, int):
        devices = DevicesEntry(count=devices)
    most = devices.count if devices.max is None else devices.max
    if most < devices.count:
        raise BadEntryError("devices.max", f"{most} is less than count = {devices.count}")
    if entry.source and not entry.source.startswith(_SOURCES):
        raise BadEntryError("source", f"{entry.source!r} starts with none of {', '.join(_SOURCES)}")
    terms = _terms(entry)
    fewest = max(entry.replicas.min, 1 if entry.pin else 0)
    replicas = max(1, fewest) if entry.replicas.max is None else entry.replicas.max
    if replicas < fewest:
        raise BadEntryError("replicas.max", f"{replicas} is less than min = {fewest}")
    return Profile(
        model=entry.id,
        terms=terms,
        revision=terms.revision,
        memory_bytes=entry.memory,
        device_memory_bytes=devices.memory,
        devices=devices.count,
        max_devices=most,
        device_kind="cuda" if entry.engine == "exllamav2" else devices.kind,
        neurons=entry.neurons,
        labels=entry.labels,
        affinity=entry.affinity,
        residency_class=entry.residency_class,
        pinned=entry.pin,
        idle_timeout_seconds=entry.idle_timeout,
        min_replicas=fewest,
        max_replicas=replicas,
        preload=entry.preload,
        aliases=entry.aliases,
        max_output_tokens=entry.limits.output,
        max_wait_seconds=entry.limits.wait,
        price=_price(entry.price),
        capabilities=entry.capabilities,
        description=entry.description,
    )


def _terms(entry: ModelEntry) -> LoadTerms:
    return LoadTerms(
        source=entry.source,
        engine=entry.engine,
        quant=entry.quant,
        max_context_tokens=entry.context,
        cache_tokens=entry.cache_tokens,
        cache_format=entry.cache_format,
        max_sequences=entry.limits.sequences,
        chat_template=entry.chat_template,
        adapters=entry.adapters,
        draft_source=entry.draft,
        ngram_draft=entry.ngram_draft,
        sha256=entry.sha256,
        embedding=entry.embedding,
        tool_format=entry.tool_format,
        reasoning_format=entry.reasoning_format,
        sampling=SamplingDefaults(**msgspec.structs.asdict(entry.sampling)),
    )


def _price(entry: PriceEntry | None) -> Price | None:
    if entry is None:
        return None
    return Price(entry.input, entry.output, entry.cache_read, entry.cache_write)
