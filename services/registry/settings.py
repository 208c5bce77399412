"""The registry's settings: `[registry]`, `[eviction]`, `[[neurons]]`, `[log]`."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from services.backplane.address import Address, AddressText, OptionalAddressText
from services.backplane.logs import LogSettings
from services.backplane.security.audit import AuditSettings
from services.backplane.security.credentials import FleetCredentials, own_credentials
from services.backplane.security.exposure import CREDENTIALS_REMEDY, refuse_exposed
from services.backplane.security.roles import Role
from services.backplane.settings import Document, SettingsError
from services.backplane.units import IN_SECONDS, PositiveSeconds, Seconds

DEFAULT_MODELS: Final = pathlib.Path("/etc/cortex/models.toml")
Whole = Annotated[int, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class RegistrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[registry]`: where it is reached, what it keeps, and how long it waits for whom.

    Attributes:
        listen: where RegistryService and OperatorService are served. An address that other
            machines reach needs credentials in [fleet].
        insecure: serve such an address to everybody, without credentials.
        address: how neurons and gateways reach this registry, told by a standby; empty means
            `listen` on this host's name.
        metrics_listen: where `/metrics` is served; empty serves none.
        store: where pins, cordons and what was learned are kept: `sqlite:PATH`,
            `sqlite::memory:`, or where several registries run `postgresql://…` or
            `kubernetes://NAMESPACE/NAME`; empty means SQLite in the user's state directory.
        models: the catalogue file; empty means /etc/cortex/models.toml where that exists.
        leader_lease_seconds: where several registries share a store, one that leads and has not
            been heard of for so long, because it is frozen or cut off, is deposed by another. One
            that is stopped is followed at once; with PostgreSQL also one that is killed.
        lease_seconds: a neuron that does not report within it is lost.
        forget_seconds: a lost neuron is listed so much longer.
        settle_seconds: after a start, how long models that are not loaded wait for neurons that
            were in the fleet before, before they are placed.
        max_wait_seconds: longest wait for a placement where the model sets none.
        max_waiters: most callers that wait for placements at once.
        authority: the folder that `cortex pki init` has made, with the authority's key: this
            registry then renews the certificates of neurons and gives new ones by token. Needs
            credentials in [fleet], and a store that outlives a restart. Empty: it gives none.
        join_listen: where hosts without a certificate join (`cortex join`), in TLS; needs
            `authority`. Empty: nobody can.
        join_approval: a host that joins gets its certificate only when an operator has approved it
            besides (`cortex neurons approve`).
        certificate_seconds: how long a certificate is good that this registry gives.
        usage_days: how long the store keeps what keys have used, by hour and model.
    """

    listen: AddressText = "127.0.0.1:31315"
    insecure: bool = False
    address: OptionalAddressText = ""
    metrics_listen: OptionalAddressText = "127.0.0.1:31316"
    store: str = ""
    models: str = ""
    leader_lease_seconds: Annotated[float, IN_SECONDS, msgspec.Meta(ge=1)] = 5.0
    lease_seconds: PositiveSeconds = 10.0
    forget_seconds: Seconds = 60.0
    settle_seconds: Seconds = 5.0
    max_wait_seconds: PositiveSeconds = 600.0
    max_waiters: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    authority: str = ""
    join_listen: OptionalAddressText = ""
    join_approval: bool = False
    certificate_seconds: Annotated[float, IN_SECONDS, msgspec.Meta(ge=60)] = 30 * 86_400.0
    usage_days: Annotated[int, msgspec.Meta(ge=32)] = 400


class EvictionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[eviction]`: which models go for others, and when.

    docs/placement.md says how the keys work together.

    Attributes:
        strategy: whose turn it is to go: `lru`, the longest unused; `priority`, the lowest
            residency class first, and within it the longest unused.
        minimum_residency_seconds: models that keep displacing each other while both are wanted are
            kept so long after they became ready, or as long as their load took where that is
            longer; a third of it after the first time, all of it after the third. What nobody has
            asked for since its last answer goes at once.
        patience_seconds: a model that waited so long may have busy models drained for it.
        drain_timeout_seconds: how long a swap lets running requests go on.
        handover_seconds: how long an instance is kept for a caller that was just sent to it.
        idle_timeout_seconds: unload after so long without work; 0 never. Models may set their own.
        defrag_after_cycles: recycle an idle worker after so many loads and unloads; 0 never.
        abandoned_loads: a load that nobody waits for any more: `keep` finishes it, `drop` ends
            it, `displaced` ends it only when another model needs the device.
        scale_up_after_seconds: a model whose replicas are all full for so long gets another one,
            up to its replicas.max and only into free room.
    """

    strategy: Literal["lru", "priority"] = "lru"
    minimum_residency_seconds: Seconds = 10.0
    patience_seconds: Seconds = 15.0
    drain_timeout_seconds: PositiveSeconds = 3600.0
    handover_seconds: Seconds = 2.0
    idle_timeout_seconds: Seconds = 0.0
    defrag_after_cycles: Whole = 50
    abandoned_loads: Literal["keep", "drop", "displaced"] = "displaced"
    scale_up_after_seconds: Seconds = 10.0


class NeuronEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[neurons]]`: a neuron that the registry dials, beside those that attach.

    Attributes:
        name: what it is called in the fleet.
        endpoint: host:port of its NeuronService.
    """

    name: Name
    endpoint: AddressText


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the registry, parsed once."""

    registry: RegistrySettings = dataclasses.field(default_factory=RegistrySettings)
    eviction: EvictionSettings = dataclasses.field(default_factory=EvictionSettings)
    neurons: tuple[NeuronEntry, ...] = ()
    log: LogSettings = dataclasses.field(default_factory=LogSettings)
    audit: AuditSettings = dataclasses.field(default_factory=AuditSettings)

    @property
    def models_path(self) -> pathlib.Path | None:
        """The catalogue file, or None where none is named and the default is not there."""
        if self.registry.models:
            return pathlib.Path(self.registry.models)
        return DEFAULT_MODELS if DEFAULT_MODELS.is_file() else None


def read(document: Document) -> Settings:
    """Reads the registry's sections out of a settings document.

    Raises:
        SettingsError: a value cannot be used; the message names source, key and reason.
    """
    settings = Settings(
        registry=document.section("registry", RegistrySettings),
        eviction=document.section("eviction", EvictionSettings),
        neurons=document.entries("neurons", NeuronEntry),
        log=document.section("log", LogSettings),
        audit=document.section("audit", AuditSettings),
    )
    _check_names(document.source, settings.neurons)
    _check_joining(document, settings.registry)
    return settings


def credentials_of(
    document: Document, settings: Settings, *, listens: Address | None = None
) -> FleetCredentials | None:
    """The certificate that the registry shows; None where it has none.

    Args:
        document: all settings.
        settings: read from them.
        listens: where, in place of `registry.listen`.

    Raises:
        SettingsError: it cannot be used, or strangers would be let in.
    """
    credentials = own_credentials(document, Role.REGISTRY)
    refuse_exposed(
        document,
        "registry",
        listens or Address.parse(settings.registry.listen),
        is_meant=credentials is not None or settings.registry.insecure,
        remedy=CREDENTIALS_REMEDY,
    )
    return credentials


def _check_names(source: str, neurons: Sequence[NeuronEntry]) -> None:
    names = [neuron.name for neuron in neurons]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise SettingsError(f"{source}: neurons[{index}].name: {name!r} is there twice")


def _check_joining(document: Document, registry: RegistrySettings) -> None:
    if registry.join_listen and not registry.authority:
        raise SettingsError(
            f"{document.place('registry.join_listen')}: needs `authority` beside it"
        )
    if registry.authority and registry.store == "sqlite::memory:":
        place = document.place("registry.authority")
        raise SettingsError(f"{place}: what was revoked has to outlive a restart; set `store`")
