"""The list of models: catalogue, what neurons have on disk, what is loaded, and aliases."""

from __future__ import annotations

from collections.abc import Callable

from cortex.v1 import operator_service_pb2, registry_service_pb2
from services.backplane import protobuf_time
from services.registry.catalogue.profile import Profile
from services.registry.fleet.records import Instance, StoredModel
from services.registry.fleet.state import FleetState
from services.registry.rpc import encode
from services.registry.scheduler import filters
from services.registry.scheduler.cache import SchedulerCache
from services.registry.scheduler.spread import whole_spreads


class ModelDirectory:
    """Lists the models that clients may ask for.

    It remembers when each was first known, and what its files are.

    Args:
        fleet_state: what there is.
        created: when models were first known, seconds since the epoch.
        wall_clock: now, seconds since the epoch: when models that are new were first known.
        on_new: called with a new model and that time.
    """

    def __init__(
        self,
        fleet_state: FleetState,
        created: dict[str, int],
        wall_clock: int,
        on_new: Callable[[str, int], None] = lambda _model, _at: None,
    ) -> None:
        self._fleet_state = fleet_state
        self._on_new = on_new
        self._created = created
        self._started = wall_clock
        self._feasible: dict[str, tuple[object, list[str]]] = {}
        # one for each model ever listed, so no more than there are names
        self._weights: dict[str, StoredModel] = {}

    def view(
        self, cache: SchedulerCache, hardware_version: int
    ) -> registry_service_pb2.CatalogueView:
        """Every model that clients may ask for.

        Args:
            cache: every neuron as the scheduler sees it.
            hardware_version: another value means that models may fit elsewhere than before.
        """
        fleet_state = self._fleet_state
        view = registry_service_pb2.CatalogueView(config_revision=fleet_state.catalogue.revision)
        for name in fleet_state.known_models():
            profile = fleet_state.profile(name)
            if profile is not None:
                view.models.append(self._model(profile, cache, hardware_version))
        return view

    def statuses(
        self, cache: SchedulerCache, hardware_version: int
    ) -> list[operator_service_pb2.ModelStatus]:
        """The list with every place where an instance or its files are."""
        found: list[operator_service_pb2.ModelStatus] = []
        for model in self.view(cache, hardware_version).models:
            status = operator_service_pb2.ModelStatus(model=model)
            loaded: set[str] = set()
            for member, instance in self._fleet_state.fleet.instances_of(model.model):
                loaded.add(member.name)
                location = status.locations.add(neuron=member.name)
                location.instance.CopyFrom(encode.instance_message(member, instance))
            for neuron in sorted(self._fleet_state.fleet.stored(model.model).keys() - loaded):
                status.locations.add(neuron=neuron)
            found.append(status)
        return found

    def _model(
        self, profile: Profile, cache: SchedulerCache, hardware_version: int
    ) -> registry_service_pb2.CatalogueModel:
        fleet_state = self._fleet_state
        instances = [instance for _, instance in fleet_state.fleet.instances_of(profile.model)]
        stored = fleet_state.fleet.stored(profile.model).values()
        message = registry_service_pb2.CatalogueModel(
            model=profile.model,
            aliases=fleet_state.aliases(profile),
            max_context_tokens=_context(profile, instances, [s.max_context_tokens for s in stored]),
            max_output_tokens=profile.max_output_tokens,
            pinned=fleet_state.is_pinned(profile),
            configured=profile.configured,
            created_unix_seconds=self._first_known(profile.model),
            config_revision=profile.revision,
            description=profile.description,
            alias_rules=[encode.alias_rules_message(each) for each in profile.alias_rules],
        )
        # what was found out wins over what the catalogue says, and nobody's silence hides another
        found = {c for i in instances for c in i.capabilities} | {
            c for s in stored for c in s.capabilities
        }
        if profile.terms.chat_template and "completion" in found:
            found.add("chat")  # its files have none
        names = tuple(sorted(found)) or profile.capabilities
        message.capabilities.extend(encode.capabilities(names))
        if profile.price is not None:
            _set_price(message.price, profile)
        weights = self._files(profile, instances, list(stored))
        if weights is not None:
            message.weights.CopyFrom(encode.stored_message(weights))
        if profile.max_wait_seconds:
            message.max_wait.CopyFrom(protobuf_time.duration(profile.max_wait_seconds))
        message.feasible_neurons.extend(self._able(profile, cache, hardware_version))
        return message

    def _files(
        self, profile: Profile, instances: list[Instance], stored: list[StoredModel]
    ) -> StoredModel | None:
        """The files of a loaded instance, else of some disk, else what was known last."""
        loaded = (i.weights for i in instances if i.weights is not None)
        found = next(loaded, None) or next(iter(stored), None)
        if found is not None:
            self._weights[profile.model] = found
        return self._weights.get(profile.model)

    def _first_known(self, model: str) -> int:
        at = self._created.get(model)
        if at is None:
            at = self._created[model] = self._started
            self._on_new(model, at)
        return at

    def _able(self, profile: Profile, cache: SchedulerCache, hardware_version: int) -> list[str]:
        """Neurons that could run a model, remembered while neither it nor they change."""
        footprint = self._fleet_state.footprint(profile)
        key = (profile, footprint, hardware_version)
        known = self._feasible.get(profile.model)
        if known is not None and known[0] == key:
            return known[1]
        whole = whole_spreads(profile, footprint)
        names = [
            info.neuron
            for info in cache.index
            if filters.is_possible(profile, footprint, whole, info)
        ]
        self._feasible[profile.model] = (key, names)
        return names


def _context(profile: Profile, instances: list[Instance], stored: list[int]) -> int:
    """The tightest limit of the instances there are; else what is configured, else of the files."""
    loaded = [i.max_context_tokens for i in instances if i.max_context_tokens]
    if loaded:
        return min(loaded)
    return profile.terms.max_context_tokens or min((s for s in stored if s), default=0)


def _set_price(message: registry_service_pb2.Price, profile: Profile) -> None:
    price = profile.price
    assert price is not None
    for name in ("input", "output", "cache_read", "cache_write"):
        value = getattr(price, name)
        if value is not None:  # unset is unknown, 0 is free
            setattr(message, name, value)
