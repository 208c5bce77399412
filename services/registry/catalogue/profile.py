"""One entry of the catalogue as the rest of the registry sees it: frozen, defaults filled in."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

DEFAULT_CLASS: Final = 100


@dataclasses.dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What requests to a model get where they set nothing; None leaves it to the model's files.

    Named and measured as in the contract's `Sampling`.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


NO_SAMPLING: Final = SamplingDefaults()
"""All of it is the model's own choice."""


@dataclasses.dataclass(frozen=True, slots=True)
class RequestValues:
    """What requests get; None says nothing."""

    max_tokens: int | None = None
    reasoning: bool | None = None
    sampling: SamplingDefaults = NO_SAMPLING


@dataclasses.dataclass(frozen=True, slots=True)
class AliasRules:
    """How requests to an alias are changed; see `AliasRules` of the contract.

    Attributes:
        strip: what is taken out of them.
        default: what they get where they set nothing; force, whatever they set.
        fallback: which other model answers where this one cannot be served; empty: none.
    """

    alias: str
    system: str = ""
    default: RequestValues = RequestValues()
    force: RequestValues = RequestValues()
    strip: tuple[str, ...] = ()
    fallback: str = ""

    @property
    def is_empty(self) -> bool:
        """True where requests stay as they are."""
        return self == AliasRules(self.alias)


@dataclasses.dataclass(frozen=True, slots=True)
class LoadTerms:
    """All that decides what a load results in. Another value is another revision.

    Empty and 0 leave the choice to the neuron, as in LoadSpec. Only `max_sequences` is not part of
    the revision: what is loaded goes on with the places that it has.
    """

    source: str = ""
    engine: str = ""
    quant: str = ""
    parallel: str = ""
    max_context_tokens: int = 0
    cache_tokens: int = 0
    cache_format: str = ""
    max_sequences: int = 0
    chat_template: str = ""
    adapters: tuple[str, ...] = ()
    draft_source: str = ""
    ngram_draft: bool = False
    sha256: str = ""
    embedding: bool = False
    tool_format: str = ""
    reasoning_format: str = ""

    @property
    def revision(self) -> int:
        """A number of the content: the same after a restart, another after an edit; never 0.

        48 bits, so that JSON readers keep it exact.
        """
        decisive = dataclasses.replace(self, max_sequences=0)
        text = json.dumps(dataclasses.asdict(decisive), sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") | 1


@dataclasses.dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens. None is unknown, 0 is free."""

    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """One model that clients may ask for.

    Attributes:
        revision: of `terms`; 0 for a model that is only found on some disk, so that whatever a
            person loaded by hand counts.
        memory_bytes: what it takes in all; 0 for unknown.
        device_memory_bytes: what it takes on each device; 0 means memory_bytes evenly spread.
        devices: fewest devices; max_devices, most. Fewer are preferred.
        device_kind: `cuda`, `cpu`, or empty for any.
        neurons: where it may run; empty means anywhere.
        labels: what a neuron must have.
        affinity: what a neuron should have; says where, and protects nothing.
        exclusive_group: of whose models one alone is loaded on a device; empty for none.
        exclusive_with: the other models of that group.
        apart_from: models that are never on one neuron with it; rather_apart_from: models that
            should not be. Whichever of two names the other, both have it.
        residency_class: who may displace it: its own class and those above.
        pinned: kept loaded and never evicted.
        idle_timeout_seconds: unloaded after so long without work; None means the default, 0 never.
        min_replicas: kept loaded; max_replicas, most instances in the fleet.
        preload: loaded at start where there is free room; protected by nothing afterwards.
        max_wait_seconds: longest wait for a placement; 0 means the default.
        sampling: what requests get where they set nothing; a change needs no load.
        alias_rules: of those aliases that have any.
        configured: in the catalogue file.
    """

    model: str
    terms: LoadTerms = LoadTerms()
    revision: int = 0
    memory_bytes: int = 0
    device_memory_bytes: int = 0
    devices: int = 1
    max_devices: int = 1
    device_kind: str = ""
    neurons: tuple[str, ...] = ()
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    affinity: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    exclusive_group: str = ""
    exclusive_with: tuple[str, ...] = ()
    apart_from: tuple[str, ...] = ()
    rather_apart_from: tuple[str, ...] = ()
    residency_class: int = DEFAULT_CLASS
    pinned: bool = False
    idle_timeout_seconds: float | None = None
    min_replicas: int = 0
    max_replicas: int = 1
    preload: bool = False
    aliases: tuple[str, ...] = ()
    max_output_tokens: int = 0
    max_wait_seconds: float = 0.0
    price: Price | None = None
    capabilities: tuple[str, ...] = ()
    description: str = ""
    sampling: SamplingDefaults = NO_SAMPLING
    alias_rules: tuple[AliasRules, ...] = ()
    configured: bool = True

    @property
    def is_divided(self) -> bool:
        """True if its layers are divided between two or more equal GPUs."""
        return self.terms.parallel == "tensor"

    @property
    def has_rivals(self) -> bool:
        """There are models beside which it is never loaded."""
        return bool(self.exclusive_with or self.apart_from)

    def matches(self, config_revision: int) -> bool:
        """True if an instance of that revision is this profile's.

        0, on either side, means made by hand: any instance will do.
        """
        return config_revision in {0, self.revision} or self.revision == 0

    def content(self) -> dict[str, Any]:
        """All fields as values, by which two catalogues are compared."""
        return dataclasses.asdict(self)
