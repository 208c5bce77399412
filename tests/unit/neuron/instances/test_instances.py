from __future__ import annotations

import asyncio

import pytest

from cortex.v1 import model_pb2 as model
from services.backplane.changes import Changes
from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.model import ModelStats
from services.neuron.instances.instances import Instance, Instances, State

PATHS = {
    State.LOADING: [],
    State.READY: [State.READY],
    State.DRAINING: [State.READY, State.DRAINING],
    State.UNLOADING: [State.READY, State.DRAINING, State.UNLOADING],
    State.RECOVERING: [State.READY, State.RECOVERING],
    State.FAILED: [State.READY, State.RECOVERING, State.FAILED],
}


class Work:
    def resume(self, link: object) -> None: ...

    def fail(self, error: FleetError) -> None: ...


def one(state: State, *, name: str = "m", instance_id: str = "m-1"):
    instances = Instances(Changes())
    return instances, put(instances, state, name=name, instance_id=instance_id)


def put(instances: Instances, state: State, *, name: str = "m", instance_id: str) -> Instance:
    instance = Instance(instance_id=instance_id, spec=model.LoadSpec(model=name))
    instances.add(instance)
    for step in PATHS[state]:
        instances.move(instance, step)
    return instance


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (State.READY, None),
        (State.LOADING, Reason.INSTANCE_RECOVERING),
        (State.RECOVERING, Reason.INSTANCE_RECOVERING),
        (State.DRAINING, Reason.INSTANCE_DRAINING),
        (State.UNLOADING, Reason.INSTANCE_DRAINING),
        (State.FAILED, Reason.INSTANCE_GONE),
    ],
)
def test_only_a_ready_instance_takes_work(state, reason):
    instances, instance = one(state)

    if reason is None:
        assert instances.admit("m", "m-1") is instance
        return
    with pytest.raises(FleetError) as refused:
        instances.admit("m", "m-1")
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("name", "instance_id", "reason"),
    [
        ("other", "m-1", Reason.INSTANCE_MISMATCH),
        ("m", "m-2", Reason.INSTANCE_GONE),
        ("other", "", Reason.MODEL_UNKNOWN),
    ],
)
def test_identity_is_checked(name, instance_id, reason):
    instances, _ = one(State.READY)

    with pytest.raises(FleetError) as refused:
        instances.admit(name, instance_id)

    assert refused.value.reason is reason


def test_the_idlest_ready_copy_serves_who_names_none():
    instances, busy = one(State.READY)
    idle = put(instances, State.READY, instance_id="m-2")
    put(instances, State.RECOVERING, instance_id="m-3")
    instances.begin(busy, Work())

    assert instances.admit("m", "") is idle


def test_nothing_is_admitted_after_the_end_was_asked_for():
    instances, _ = one(State.READY)

    instances.close()

    with pytest.raises(FleetError) as refused:
        instances.admit("m", "")
    assert refused.value.reason is Reason.SHUTTING_DOWN
    assert refused.value.retry_after_seconds


def test_a_draining_instance_never_serves_again():
    instances, instance = one(State.DRAINING)

    with pytest.raises(AssertionError):
        instances.move(instance, State.READY)


def test_changes_are_told_when_the_load_changes_and_not_otherwise():
    instances, instance = one(State.READY)
    before = instances.changes.version

    instances.note_stats("m-1", ModelStats(active=1, steps=5))
    instances.note_stats("m-1", ModelStats(active=1, steps=6))
    instances.note_stats("gone", ModelStats(active=9))

    assert instances.changes.version == before + 1
    assert instance.stats.steps == 6


def test_work_that_runs_is_counted_until_it_ends():
    instances, instance = one(State.READY)
    work = Work()

    instances.begin(instance, work)
    assert instances.running == 1
    assert not instance.is_quiet
    instances.end(instance, work)

    assert instances.running == 0
    assert instance.last_used_at > 0


async def test_a_change_wakes_those_who_wait():
    changes = Changes()
    waiting = asyncio.create_task(changes.after(changes.version))
    await asyncio.sleep(0)
    assert not waiting.done()

    changes.bump()

    assert await asyncio.wait_for(waiting, 60) == changes.version
    assert await changes.after(0) == 1
