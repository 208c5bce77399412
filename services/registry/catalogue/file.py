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
# The contract has 32 bits for what is counted.
_MOST: Final = (1 << 31) - 1
Count = Annotated[int, msgspec.Meta(ge=1, le=_MOST)]
Whole = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
Dollars = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
CapabilityName = Literal["chat", "completion", "embedding", "tools", "reasoning", "vision"]
_SOURCES: Final = ("path:", "package:", "hf:")


class BadEntryError(ValueError):
    """A value in the catalogue that cannot be used; the message names key and reason."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")


class DevicesEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`devices = { count = 2, max = 4, memory = "20GiB", kind = "cuda" }`.

    Attributes:
        count: fewest devices that the model is spread over.
        max: most devices; unset means as many as `count`. Fewer are preferred.
        memory: what it takes on each device until a load has taught better; 0 spreads the model's
            `memory` evenly.
        kind: `cuda`, `gpu` (one that NVML does not know), `cpu`, or empty for any.
    """

    count: Count = 1
    max: Count | None = None
    memory: Bytes = 0
    kind: Literal["", "cpu", "cuda", "gpu"] = ""


class ReplicasEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`replicas = { min = 1, max = 3 }`.

    Attributes:
        min: so many instances are kept loaded, and loaded again where they are missing.
        max: most instances in the fleet; unset means 1, or `min` where that is more.
    """

    min: Whole = 0
    max: Count | None = None


class AntiAffinityEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`anti_affinity = { required = ["a"], preferred = ["b"] }`: which models are kept apart.

    It holds both ways: whichever of two models names the other. Instances of one model are on
    different neurons in any case.

    Attributes:
        required: models that are never loaded on one neuron with it.
        preferred: models that are on another neuron where there is a choice.
    """

    required: tuple[Name, ...] = ()
    preferred: tuple[Name, ...] = ()


class LimitsEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`limits = { output = 4096, wait = "5m", sequences = 8 }`.

    Attributes:
        output: most tokens of one answer, as lists of models tell it; 0 is unknown.
        wait: longest wait for a placement; 0 means `max_wait_seconds` of the registry.
        sequences: most sequences decoded together; 0 leaves it to the neuron.
    """

    output: Whole = 0
    wait: Seconds = 0.0
    sequences: Whole = 0


class PriceEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`price = { input = 0.15, output = 0.6 }`, US dollars per million tokens.

    Attributes:
        input: of a prompt's tokens; unset is unknown, 0 is free.
        output: of an answer's tokens.
        cache_read: of a prompt's tokens that the cache had.
        cache_write: of a prompt's tokens that were put into the cache.
    """

    input: Dollars | None = None
    output: Dollars | None = None
    cache_read: Dollars | None = None
    cache_write: Dollars | None = None


class SamplingEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[models.sampling]`: what requests get where they set nothing.

    Ranges are those of the contract's `Sampling`. What is unset comes from the model's own files.

    Attributes:
        temperature: how much chance there is in the choice of a token; 0 takes the likeliest.
        top_p: only the likeliest tokens that have this share of the probability together.
        top_k: only so many of the likeliest tokens; 0 is all.
        min_p: only tokens that are at least this share as likely as the likeliest.
        typical_p: only tokens of typical information that have this share together.
        repetition_penalty: divides the likelihood of tokens that were there; 1 changes nothing.
        frequency_penalty: taken from a token's logit for each time that it was there.
        presence_penalty: taken from a token's logit if it was there at all.
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
    """`[[models]]`: one model. What the keys decide together is said in docs/placement.md.

    Attributes:
        id: what clients ask for.
        source: where the files are: `path:/…`, `package:NAME==VERSION[/FILES]` or
            `hf:OWNER/NAME@REVISION[/FILES]`; empty for files of that name under a neuron's
            `models_dirs`.
        engine: what runs it; empty lets the neuron choose.
        quant: names one of several GGUF files of the source, such as `Q4_K_M`.
        memory: what it takes in all until the first load has taught better; 0 is unknown.
        devices: how many devices it is spread over, or a table.
        parallel: how ExLlamaV2 spreads it over several: whole `layers` on each device; `tensor`, a
            part of every layer on each, between equal GPUs; `auto`, the second where it can and one
            device does not hold it. Empty is `layers`.
        context: longest prompt plus completion, in tokens; 0 is the model's own.
        cache_tokens: cache that its sequences share, in tokens; 0 leaves it to the neuron.
        cache_format: how the cache is kept; empty leaves it to the engine.
        chat_template: a Jinja template in place of the model's own.
        adapters: sources of LoRA adapters.
        draft: the source of a smaller model for speculative decoding.
        ngram_draft: speculative decoding from the text so far, without a second model.
        sha256: what the files' digest has to be, in hex; empty checks none.
        embedding: loaded for embeddings.
        tool_format: how it writes tool calls; empty finds that in its template.
        reasoning_format: how it writes its reasoning; empty finds that in its template.
        sampling: what requests get where they set nothing.
        neurons: names of the neurons where it may run; empty means anywhere.
        labels: what a neuron must have.
        affinity: what a neuron should have; says where, and protects nothing.
        exclusive: name of a group; of its models one alone is loaded on a device at a time.
        anti_affinity: models that are kept on other neurons.
        residency_class: who may displace it: its own class and those above.
        pin: kept loaded and never evicted.
        preload: loaded at start where there is free room; protected by nothing afterwards.
        idle_timeout: unloaded after so long without work; 0 never, unset means
            `idle_timeout_seconds` of `[eviction]`.
        replicas: how many instances there may be.
        aliases: other names that clients may ask for it by.
        limits: bounds of requests.
        price: for clients that ask what a token costs; unset is unknown.
        capabilities: what it can do; empty is what a neuron finds once it is loaded.
        description: words for lists of models.
    """

    id: Name
    source: str = ""
    engine: Literal["", "exllamav2", "llamacpp"] = ""
    quant: str = ""
    memory: Bytes = 0
    devices: Count | DevicesEntry = 1
    parallel: Literal["", "auto", "layers", "tensor"] = ""
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
    exclusive: Annotated[str, msgspec.Meta(max_length=256)] = ""
    anti_affinity: AntiAffinityEntry = AntiAffinityEntry()
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
    if entry.parallel == "tensor" and most == 1:
        raise BadEntryError("devices", 'it is 1, and parallel = "tensor" takes two or more')
    if entry.parallel and entry.engine == "llamacpp":
        raise BadEntryError("parallel", "is for ExLlamaV2; llama.cpp's is [neuron.llamacpp] split")
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
        exclusive_group=entry.exclusive,
        apart_from=entry.anti_affinity.required,
        rather_apart_from=entry.anti_affinity.preferred,
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
        sampling=SamplingDefaults(**msgspec.structs.asdict(entry.sampling)),
    )


def _terms(entry: ModelEntry) -> LoadTerms:
    return LoadTerms(
        source=entry.source,
        engine=entry.engine,
        quant=entry.quant,
        parallel=entry.parallel,
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
    )


def _price(entry: PriceEntry | None) -> Price | None:
    if entry is None:
        return None
    return Price(entry.input, entry.output, entry.cache_read, entry.cache_write)
