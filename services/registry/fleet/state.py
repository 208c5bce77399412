"""All that decisions are made of: fleet, catalogue, pins, learned figures, policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

from services.backplane.errors import FleetError
from services.registry.catalogue import catalogue
from services.registry.catalogue.catalogue import Catalogue
from services.registry.catalogue.profile import Profile
from services.registry.fleet.displacements import Displacements
from services.registry.fleet.footprints import Footprint, Footprints
from services.registry.fleet.members import Fleet
from services.registry.fleet.names import ModelNames
from services.registry.fleet.policy import Policy
from services.registry.fleet.records import Instance, InstanceState, Member
from services.registry.fleet.usage import Activity, UsageRecord

NoteFault: TypeAlias = Callable[[str, BaseException], FleetError]


def _let_out(_: str, error: BaseException) -> FleetError:
    raise error


@dataclasses.dataclass(slots=True)
class FleetState:
    """The state of the fleet. It has one writer, the `ControlPlane`.

    `clock` gives monotonic seconds.

    Attributes:
        note_fault: told of an exception that nobody foresaw, and in which loop; gives what the one
            whose work it ended is told. Unset, exceptions end whatever raised them.
        pins: model to the neuron it is pinned on; empty for any neuron.
    """

    clock: Callable[[], float]
    policy: Policy = dataclasses.field(default_factory=Policy)
    fleet: Fleet = dataclasses.field(default_factory=Fleet)
    catalogue: Catalogue = catalogue.EMPTY
    footprints: Footprints = dataclasses.field(default_factory=Footprints)
    activity: Activity = dataclasses.field(default_factory=Activity)
    displacements: Displacements = dataclasses.field(default_factory=Displacements)
    names: ModelNames = dataclasses.field(default_factory=ModelNames)
    pins: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    note_fault: NoteFault = _let_out

    def resolve(self, name: str) -> str:
        """The own name of the model behind a name or alias; of one that is unknown the name."""
        model = self.catalogue.resolve(name)
        if model in self.catalogue.profiles:
            return model
        return self.names.own_name(model, self.fleet, self.catalogue)

    def aliases(self, profile: Profile) -> list[str]:
        """The other names of a model: those configured, then those that its files have."""
        found = self.names.others(profile.model, self.fleet, self.catalogue)
        return [*profile.aliases, *found]

    def profile(self, name: str) -> Profile | None:
        """The model behind a name or alias, configured or found on a neuron; None if unknown."""
        model = self.resolve(name)
        configured = self.catalogue.profiles.get(model)
        if configured is not None:
            return configured
        stored = self.fleet.stored(model)
        if stored:
            some = next(iter(stored.values()))
            return Profile(model, configured=False, capabilities=some.capabilities)
        for _, instance in self.fleet.instances_of(model):
            return Profile(model, configured=False, capabilities=instance.capabilities)
        return None

    def known_models(self) -> list[str]:
        """Every model that clients may ask for, in order."""
        names = set(self.catalogue.profiles)
        names.update(self.fleet.stored_models(), self.fleet.loaded_models())
        names -= self.catalogue.aliases.keys()
        return sorted(name for name in names if self.resolve(name) == name)

    def is_pinned(self, profile: Profile) -> bool:
        """True if it is pinned by the catalogue or by an operator."""
        return profile.pinned or bool(self.pins_of(profile.model))

    def pins_of(self, model: str) -> list[str]:
        """The names by which operators have pinned a model: its own, or one that it has too."""
        return [name for name in self.pins if name == model or self.resolve(name) == model]

    def pinned_on(self, profile: Profile) -> str:
        """The neuron that an operator has pinned a model on; empty for any, or none."""
        return next((self.pins[name] for name in self.pins_of(profile.model)), "")

    def wanted_instances(self, profile: Profile) -> int:
        """How many instances are kept loaded: the model's minimum, and one for a pinned model."""
        return max(profile.min_replicas, 1 if self.is_pinned(profile) else 0)

    def footprint(self, profile: Profile) -> Footprint:
        """What the model needs, by the best figure there is."""
        stored = self.fleet.stored(profile.model).values()
        largest = max(stored, key=lambda one: one.size_bytes, default=None)
        return self.footprints.footprint(profile, largest)

    def idle_timeout(self, profile: Profile, record: UsageRecord) -> float:
        """Seconds without work after which an instance goes; infinity for never."""
        if record.keep_alive is not None:
            return record.keep_alive
        own = profile.idle_timeout_seconds
        return (self.policy.idle_timeout if own is None else own) or float("inf")

    def keep_alive(self, model: str, seconds: float) -> None:
        """Sets how long the instances that there are now are kept when idle."""
        for _, instance in self.fleet.instances_of(model):
            record = self.activity.of(instance.instance_id)
            if record is not None:
                record.keep_alive = seconds

    def protected_until(self, instance: Instance) -> float:
        """Until when an instance without work may not be evicted; monotonic seconds.

        The longest of these:

        1. A caller was just sent to it: until that one has come and has been answered, and for
           `Policy.handover` seconds at most.
        2. Its model and another one displaced each other lately, while both were wanted: a part of
           its full residency, from when it became ready. Each such time adds a third, and half of
           them are forgotten in a minute; so it is the whole after the third time in a row.
        3. Else nothing: what nobody has asked for since its last answer goes at once.

        The full residency is `Policy.minimum_residency`, or as long as its load took where that is
        longer.
        """
        record = self.activity.of(instance.instance_id)
        if record is None:
            return 0.0
        full = max(self.policy.minimum_residency, record.load_seconds)
        share = self.displacements.share(instance.model, record.ready_since)
        residency = record.ready_since + share * full if share else 0.0
        return max(residency, record.held_until)

    def is_routable(self, profile: Profile, member: Member, instance: Instance) -> bool:
        """True if requests may be sent to an instance: ready, servable, of the right revision."""
        return (
            instance.state is InstanceState.READY
            and instance.servable
            and member.can_serve
            and profile.matches(instance.config_revision)
        )
