"""The gateway's copy of the fleet."""

from __future__ import annotations

from typing import Any

import pytest

from cortex.v1 import model_pb2
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.errors import FleetError, Reason
from services.gateway.routing.candidates import Availability, Outstanding
from services.gateway.routing.fleet_view import RETAINED_SECONDS, FleetView, availability_of

READY = model_pb2.INSTANCE_STATE_READY


def neuron(name: str = "n1", model: str = "m", active: int = 0, **facts: Any) -> registry.Neuron:
    made = registry.Neuron(**facts)
    made.identity.name = name
    made.identity.address = f"{name}:1"
    instance = made.report.instances.add(
        instance_id=f"{name}/{model}", state=READY, active_requests=active, queued_requests=1
    )
    instance.spec.model = model
    return made


def snapshot(
    *neurons: registry.Neuron, revision: int = 1, incarnation: str = "r1", **models: str
) -> registry.WatchFleetResponse:
    made = registry.WatchFleetResponse(revision=revision, registry_incarnation_id=incarnation)
    made.snapshot.neurons.extend(neurons)
    for model, alias in models.items():
        made.snapshot.catalogue.models.add(model=model, aliases=[alias])
    return made


def changed(one: registry.Neuron, revision: int = 2) -> registry.WatchFleetResponse:
    return registry.WatchFleetResponse(
        revision=revision, registry_incarnation_id="r1", neuron_changed=one
    )


def test_before_the_first_snapshot_nothing_is_known() -> None:
    with pytest.raises(FleetError) as caught:
        FleetView(Outstanding()).resolve("m")

    assert caught.value.reason is Reason.REGISTRY_UNAVAILABLE


def test_names_and_aliases_are_resolved_and_others_named_as_unknown() -> None:
    view = FleetView(Outstanding())
    view.apply(snapshot(neuron(), m="alias"))

    assert view.resolve("alias") == view.resolve("m")
    assert [c.instance_id for c in view.resolve("alias").candidates] == ["n1/m"]
    with pytest.raises(FleetError, match="nonesuch") as caught:
        view.resolve("nonesuch")
    assert caught.value.reason is Reason.MODEL_UNKNOWN


def test_a_loaded_model_that_is_in_no_catalogue_may_be_asked_for() -> None:
    view = FleetView(Outstanding())
    view.apply(snapshot(neuron(model="by-hand")))

    assert len(view.resolve("by-hand").candidates) == 1


def test_changes_replace_and_remove() -> None:
    view = FleetView(Outstanding())
    view.apply(snapshot(neuron(), m="alias"))
    view.apply(changed(neuron("n2")))
    assert {c.neuron for c in view.resolve("m").candidates} == {"n1", "n2"}

    view.apply(registry.WatchFleetResponse(revision=3, neuron_removed="n1"))

    assert {c.neuron for c in view.resolve("m").candidates} == {"n2"}
    assert view.revision == 3


def test_own_requests_are_not_counted_as_foreign() -> None:
    outstanding = Outstanding()
    for _ in range(3):
        outstanding.take("n1/m")
    view = FleetView(outstanding)

    view.apply(snapshot(neuron(active=4)))

    assert view.resolve("m").candidates[0].foreign_requests == 4 + 1 - 3


def test_replicas_are_as_busy_as_the_last_report_and_what_runs_now_make_them() -> None:
    outstanding = Outstanding()
    view = FleetView(outstanding)
    view.apply(snapshot(neuron("n1", active=4), neuron("n2"), m="alias"))
    by_name, by_alias = view.resolve("m").replicas, view.resolve("alias").replicas

    outstanding.take("n1/m")
    outstanding.take("n1/m")
    outstanding.give_back("n1/m")
    outstanding.take("another")

    assert by_name is by_alias
    assert dict(zip(by_name.names, by_name.work, strict=True)) == {"n1/m": 6, "n2/m": 1}
    view.apply(changed(neuron("n1", active=0)))
    assert view.resolve("m").replicas.work == [1, 1]  # its own one and the queued one are the same
    outstanding.give_back("n1/m")
    assert view.resolve("m").replicas.work == [0, 1]


def test_a_restarted_registry_takes_nobody_away_at_once() -> None:
    now = [0.0]
    view = FleetView(Outstanding(), clock=lambda: now[0])
    view.apply(snapshot(neuron("n1"), neuron("n2"), m="alias"))

    view.apply(snapshot(neuron("n2"), incarnation="r2", m="alias"))
    now[0] = RETAINED_SECONDS - 1
    view.expire()
    assert {c.neuron for c in view.resolve("m").candidates} == {"n1", "n2"}

    now[0] = RETAINED_SECONDS + 1
    view.expire()
    assert {c.neuron for c in view.resolve("m").candidates} == {"n2"}


def test_the_same_registrys_new_snapshot_is_believed() -> None:
    view = FleetView(Outstanding())
    view.apply(snapshot(neuron("n1"), m="alias"))

    view.apply(snapshot(m="alias", revision=9))

    assert view.resolve("m").candidates == ()


@pytest.mark.parametrize(
    ("state", "facts", "revision", "expected"),
    [
        (READY, {}, 0, Availability.SERVING),
        (READY, {"lost": True}, 0, Availability.UNUSABLE),
        (READY, {}, 5, Availability.UNUSABLE),
        (model_pb2.INSTANCE_STATE_RECOVERING, {}, 0, Availability.RECOVERING),
        (model_pb2.INSTANCE_STATE_RECOVERING, {"lost": True}, 0, Availability.UNUSABLE),
        (model_pb2.INSTANCE_STATE_DRAINING, {}, 0, Availability.UNUSABLE),
        (model_pb2.INSTANCE_STATE_LOADING, {}, 0, Availability.UNUSABLE),
        (model_pb2.INSTANCE_STATE_FAILED, {}, 0, Availability.UNUSABLE),
    ],
)
def test_standing(
    state: model_pb2.InstanceState.ValueType,
    facts: dict[str, bool],
    revision: int,
    expected: Availability,
) -> None:
    given: dict[str, Any] = dict(facts)
    one = neuron(**given)
    one.report.instances[0].state = state
    one.report.instances[0].spec.config_revision = 4

    assert availability_of(one, one.report.instances[0], revision) is expected


@pytest.mark.parametrize("made_of", [0, 5])
def test_a_copy_made_by_hand_or_of_this_revision_serves(made_of: int) -> None:
    one = neuron()
    one.report.instances[0].spec.config_revision = made_of

    assert availability_of(one, one.report.instances[0], 5) is Availability.SERVING


def test_silence_about_servability_means_servable() -> None:
    one = neuron()
    assert availability_of(one, one.report.instances[0], 0) is Availability.SERVING

    one.report.instances[0].servable = False

    assert availability_of(one, one.report.instances[0], 0) is Availability.UNUSABLE
