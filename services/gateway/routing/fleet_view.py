"""What the gateway knows of the fleet: it routes by this, also while no registry answers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from cortex.v1 import model_pb2
from cortex.v1 import registry_service_pb2 as registry
from services.backplane import protobuf_time
from services.backplane.changes import Changes
from services.backplane.errors import FleetError, Reason
from services.gateway.routing.candidates import (
    Availability,
    InstanceCandidate,
    Outstanding,
    Replicas,
)

# After its restart a registry knows no neuron before that has attached again: for so long, those
# that it knew before are kept.
RETAINED_SECONDS: Final = 20.0
_RESUME: Final = "resume"


@dataclasses.dataclass(frozen=True, slots=True)
class ResolvedModel:
    """The model behind a name or alias, and its instances.

    Attributes:
        model: the model's own name.
        replicas: its instances.
        max_wait_seconds: longest wait for a placement; None: the gateway's default.
    """

    model: str
    replicas: Replicas
    max_wait_seconds: float | None = None

    @property
    def candidates(self) -> tuple[InstanceCandidate, ...]:
        """All of its instances."""
        return self.replicas.candidates


class FleetView:
    """Takes in the registry's changes and answers look-ups from memory.

    Args:
        outstanding: this gateway's running requests per instance id.
        on_models: called with the names of all models whenever the catalogue has changed.
        on_revoked: called with the serial numbers of all certificates that are refused, whenever
            there are others.
        clock: seconds, monotonic.

    Attributes:
        revision: of the last change; None before the first snapshot.
        registry_incarnation_id: which start of the registry it came from.
        is_followed: the registry is there, and tells of its changes.
    """

    def __init__(
        self,
        outstanding: Outstanding,
        *,
        on_models: Callable[[Iterable[str]], None] = lambda _: None,
        on_revoked: Callable[[Iterable[str]], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outstanding = outstanding
        self._on_models = on_models
        self._on_revoked = on_revoked
        self._clock = clock
        self._retained: dict[str, float] = {}
        self._neurons: dict[str, registry.Neuron] = {}
        self._catalogue: dict[str, registry.CatalogueModel] = {}
        self._by_name: dict[str, registry.CatalogueModel] = {}
        self._rules: dict[str, registry.AliasRules] = {}
        self._foreign: dict[str, dict[str, int]] = {}
        self._is_settling = False
        self._resolved: dict[str, ResolvedModel] = {}
        self._replicas: dict[str, Replicas] = {}
        self._changes = Changes()
        self.revision: int | None = None
        self.registry_incarnation_id = ""
        self.is_followed = False

    @property
    def is_known(self) -> bool:
        """True once the registry has sent a first snapshot of the fleet."""
        return self.revision is not None

    @property
    def is_complete(self) -> bool:
        """False while the registry is yet to be reached, or waits for its neurons after a start."""
        return self.is_known and not self._is_settling

    @property
    def neurons(self) -> Mapping[str, registry.Neuron]:
        """Every neuron by name; after a restart of the registry also those not yet back."""
        return self._neurons

    @property
    def catalogue(self) -> Mapping[str, registry.CatalogueModel]:
        """Every model of the catalogue, by its own name."""
        return self._catalogue

    def apply(self, change: registry.WatchFleetResponse) -> None:
        """Applies one message of `WatchFleet`: a snapshot or a change."""
        if change.HasField("revoked"):
            self._on_revoked(change.revoked.serials)
        kind = change.WhichOneof("event")
        if kind == "snapshot":
            restarted = change.registry_incarnation_id != self.registry_incarnation_id
            self._start_over(change.snapshot, retain=self.is_known and restarted)
        elif kind == "neuron_changed":
            self._keep(change.neuron_changed)
        elif kind == "neuron_removed":
            self._remove(change.neuron_removed)
        elif kind == "catalogue":
            self._keep_catalogue(change.catalogue)
        self.is_followed = True
        self.revision = change.revision
        self.registry_incarnation_id = change.registry_incarnation_id
        if kind != "progress":
            self._tell()

    def distrust(self) -> None:
        """Makes the next watch begin with a snapshot: what is known may be half a change.

        Until then requests are still routed by it.
        """
        self.revision = None

    def expire(self) -> None:
        """Drops neurons that have not attached again in time after a restart of the registry."""
        late = [name for name, until in self._retained.items() if until <= self._clock()]
        for name in late:
            self._remove(name)
        if late:
            self._tell()

    async def changed(self) -> None:
        """Waits until the view changes."""
        await self._changes.after(self._changes.version)

    def resolve(self, name: str) -> ResolvedModel:
        """The model behind a name or alias, with its instances.

        Raises:
            FleetError: MODEL_UNKNOWN, or REGISTRY_UNAVAILABLE where nothing is known yet.
        """
        resolved = self._resolved.get(name)
        if resolved is None:
            resolved = self._resolve(name)
            self._resolved[name] = resolved
        return resolved

    def resumes(self, neuron: str) -> bool:
        """True if a neuron can go on behind tokens that another one has made."""
        known = self._neurons.get(neuron)
        return known is not None and _RESUME in known.identity.features

    def model_named(self, name: str) -> str | None:
        """The own name of the model behind a name or alias; None where nobody knows it."""
        try:
            return self.resolve(name).model
        except FleetError:
            return None

    def rules(self, name: str) -> registry.AliasRules | None:
        """The rules for requests to an alias; None where it has none."""
        return self._rules.get(name)

    def _resolve(self, name: str) -> ResolvedModel:
        entry = self._by_name.get(name)
        model = name if entry is None else entry.model
        candidates = self._candidates(model, 0 if entry is None else entry.config_revision)
        if entry is None and not candidates:
            if not self.is_known:
                message = "The fleet's registry has not been reached yet."
                raise FleetError(Reason.REGISTRY_UNAVAILABLE, message, retry_after_seconds=2)
            raise unknown_model(name)
        wait = None
        if entry is not None and entry.HasField("max_wait"):
            wait = protobuf_time.seconds(entry.max_wait)
        return ResolvedModel(model, self._replicas_of(model, candidates), wait)

    def _replicas_of(self, model: str, candidates: Sequence[InstanceCandidate]) -> Replicas:
        """The instances of a model: one object for all of its names."""
        replicas = self._replicas.get(model)
        if replicas is None:
            replicas = self._replicas[model] = Replicas(model, candidates, self._outstanding)
            self._outstanding.follow(replicas)
        return replicas

    def _candidates(self, model: str, config_revision: int) -> list[InstanceCandidate]:
        return [
            InstanceCandidate(
                instance_id=instance.instance_id,
                model=model,
                neuron=neuron.identity.name,
                address=neuron.identity.address,
                availability=availability_of(neuron, instance, config_revision),
                foreign_requests=self._foreign[neuron.identity.name][instance.instance_id],
                report=(neuron.identity.incarnation_id, neuron.report.sequence),
                max_context_tokens=instance.max_context_tokens,
                longest_token_bytes=instance.longest_token_bytes,
                places=instance.max_active_requests,
                resumes=self.resumes(neuron.identity.name),
            )
            for neuron in self._neurons.values()
            for instance in neuron.report.instances
            if instance.spec.model == model
        ]

    def _tell(self) -> None:
        self._resolved.clear()
        self._replicas.clear()
        self._outstanding.unfollow()
        self._changes.bump()

    def _start_over(self, snapshot: registry.FleetSnapshot, *, retain: bool) -> None:
        present = {neuron.identity.name for neuron in snapshot.neurons}
        for name in self._neurons.keys() - present:
            if retain:
                self._retained.setdefault(name, self._clock() + RETAINED_SECONDS)
            else:
                self._remove(name)
        for neuron in snapshot.neurons:
            self._keep(neuron)
        self._keep_catalogue(snapshot.catalogue)

    def _remove(self, name: str) -> None:
        self._neurons.pop(name, None)
        self._foreign.pop(name, None)
        self._retained.pop(name, None)

    def _keep(self, neuron: registry.Neuron) -> None:
        self._neurons[neuron.identity.name] = neuron
        self._retained.pop(neuron.identity.name, None)
        foreign = self._foreign[neuron.identity.name] = {}
        for instance in neuron.report.instances:
            reported = instance.active_requests + instance.queued_requests
            own = self._outstanding.get(instance.instance_id, 0)
            foreign[instance.instance_id] = max(0, reported - own)

    def _keep_catalogue(self, catalogue: registry.CatalogueView) -> None:
        self._is_settling = catalogue.settling
        self._catalogue = {entry.model: entry for entry in catalogue.models}
        self._by_name = {alias: e for e in catalogue.models for alias in e.aliases}
        self._by_name.update(self._catalogue)
        self._rules = {each.alias: each for e in catalogue.models for each in e.alias_rules}
        self._on_models(self._catalogue)


def unknown_model(name: str) -> FleetError:
    """The error for a model that does not exist, or not for this key."""
    told = f"The model {name!r} does not exist. GET /v1/models lists those that do."
    return FleetError(Reason.MODEL_UNKNOWN, told, field="model")


def availability_of(
    neuron: registry.Neuron, instance: model_pb2.Instance, config_revision: int
) -> Availability:
    """Whether one instance may be sent requests.

    An instance that was loaded from an older catalogue entry is UNUSABLE. Revision 0, of the
    instance or of the entry, means that there is no entry to compare with.
    """
    if neuron.lost or neuron.report.draining:
        return Availability.UNUSABLE
    made_of: Any = instance.spec.config_revision
    if made_of and config_revision and made_of != config_revision:
        return Availability.UNUSABLE
    if instance.state == model_pb2.INSTANCE_STATE_RECOVERING:
        return Availability.RECOVERING
    if instance.state != model_pb2.INSTANCE_STATE_READY:
        return Availability.UNUSABLE
    squeezed = instance.HasField("servable") and not instance.servable
    return Availability.UNUSABLE if squeezed else Availability.SERVING
