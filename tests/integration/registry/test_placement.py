"""EnsureModel over real gRPC, against scripted neurons."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from cortex.v1 import operator_service_pb2 as op
from services.backplane.errors import FleetError, Reason
from tests.doubles.registry_neuron import MIB, ScriptedNeuron, eventually
from tests.doubles.registry_stand_ins import document, running_fleet
from tests.integration.registry.two_models import TWO

THREE = f"""{TWO}
[[models]]
id = "c"
source = "path:/c"
memory = "10MiB"
"""


async def test_a_model_is_loaded_on_demand_and_its_steps_are_told(tmp_path):
    async with running_fleet(document(tmp_path, THREE)) as fleet:
        neuron = ScriptedNeuron("one")
        await fleet.add(neuron)

        steps = await fleet.ensure("first")

        assert [s.WhichOneof("event") for s in steps][-1] == "placed"
        assert "loading" in {s.WhichOneof("event") for s in steps}
        placed = steps[-1].placed
        assert (placed.neuron, placed.address, placed.model) == ("one", neuron.address, "a")
        assert placed.instance_id in neuron.instances


async def test_the_neuron_is_sent_the_whole_profile(tmp_path):
    models = """
[[models]]
id = "a"
source = "path:/a"
engine = "llamacpp"
quant = "Q4_K_M"
context = 4096
cache_format = "q8"
limits = { sequences = 3 }
[models.sampling]
temperature = 0.2
top_k = 0
"""
    async with running_fleet(document(tmp_path, models)) as fleet:
        neuron = ScriptedNeuron("one")
        await fleet.add(neuron)

        await fleet.placed("a")

        spec = neuron.loads[0]
        assert (spec.source, spec.engine, spec.quant) == ("path:/a", "llamacpp", "Q4_K_M")
        assert (spec.max_context_tokens, spec.max_sequences) == (4096, 3)
        assert spec.config_revision
        advised = {field.name: value for field, value in spec.default_sampling.ListFields()}
        assert advised == {"temperature": 0.2, "top_k": 0}
        assert list(spec.device_ids) == ["gpu0"]


async def test_many_callers_share_one_load(tmp_path):
    async with running_fleet(document(tmp_path, THREE)) as fleet:
        neuron = ScriptedNeuron("one")
        await fleet.add(neuron)
        neuron.script("a").gate.clear()
        callers = [asyncio.create_task(fleet.placed("a")) for _ in range(20)]
        await eventually(lambda: neuron.loads)

        neuron.script("a").gate.set()
        placed = await asyncio.gather(*callers)

        assert len({p.instance_id for p in placed}) == 1
        assert len(neuron.loads) == 1


async def test_a_caller_that_leaves_cancels_nothing_for_the_others(tmp_path):
    async with running_fleet(document(tmp_path, THREE)) as fleet:
        neuron = ScriptedNeuron("one")
        await fleet.add(neuron)
        neuron.script("a").gate.clear()
        leaver, stayer = (asyncio.create_task(fleet.placed("a")) for _ in range(2))
        await eventually(lambda: neuron.loads)
        leaver.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaver

        neuron.script("a").gate.set()

        assert (await stayer).model == "a"
        assert neuron.cancelled_loads == []


async def test_a_load_that_nobody_waits_for_ends_where_another_model_needs_the_device(tmp_path):
    async with running_fleet(document(tmp_path, THREE)) as fleet:
        neuron = ScriptedNeuron("one", capacity=15 * MIB)
        await fleet.add(neuron)
        neuron.script("a").gate.clear()
        leaver = asyncio.create_task(fleet.placed("a"))
        await eventually(lambda: neuron.loads)
        leaver.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaver

        placed = await fleet.placed("b")

        assert placed.model == "b"
        assert neuron.cancelled_loads == ["a"]


async def test_a_load_that_nobody_waits_for_is_finished_where_nobody_needs_the_device(tmp_path):
    async with running_fleet(document(tmp_path, THREE)) as fleet:
        neuron = ScriptedNeuron("one")
        await fleet.add(neuron)
        neuron.script("a").gate.clear()
        leaver = asyncio.create_task(fleet.placed("a"))
        await eventually(lambda: neuron.loads)
        leaver.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaver

        neuron.script("a").gate.set()

        await eventually(lambda: neuron.loaded() == ["a"])
        assert neuron.cancelled_loads == []


async def test_unknown_models_are_refused_by_name(tmp_path):
    async with running_fleet(document(tmp_path, THREE)) as fleet:
        with pytest.raises(FleetError) as refused:
            await fleet.ensure("nobody")

        assert refused.value.reason is Reason.MODEL_UNKNOWN
        assert "nobody" in refused.value.message


async def test_without_neurons_a_retry_is_advised(tmp_path):
    async with running_fleet(document(tmp_path, THREE)) as fleet:
        with pytest.raises(FleetError) as refused:
            await fleet.ensure("a")

        assert refused.value.reason is Reason.NO_NEURONS
        assert refused.value.retry_after_seconds


async def test_a_model_too_large_for_every_neuron_says_so_without_a_retry_hint(tmp_path):
    models = '[[models]]\nid = "big"\nsource = "path:/big"\nmemory = "10GiB"\n'
    async with running_fleet(document(tmp_path, models)) as fleet:
        await fleet.add(ScriptedNeuron("one"))

        with pytest.raises(FleetError) as refused:
            await fleet.ensure("big")

        assert refused.value.reason.row.http == 404
        assert refused.value.facts["cause"] == "infeasible"
        assert "10.0 GiB" in refused.value.message
        assert refused.value.retry_after_seconds is None


async def test_feasible_but_cordoned_is_503_with_a_retry_hint(tmp_path):
    from cortex.v1 import operator_service_pb2 as op

    async with running_fleet(document(tmp_path, THREE)) as fleet:
        await fleet.add(ScriptedNeuron("one"))
        await fleet.operator.CordonNeuron(op.CordonNeuronRequest(neuron="one"))

        with pytest.raises(FleetError) as refused:
            await fleet.ensure("a")

        assert refused.value.reason.row.http == 503
        assert refused.value.retry_after_seconds
        assert "cordoned" in refused.value.message


async def test_the_least_recently_used_goes_and_only_as_many_as_needed(tmp_path):
    settings = document(tmp_path, THREE, eviction={"handover_seconds": 0.0})
    async with running_fleet(settings) as fleet:
        neuron = ScriptedNeuron("one", capacity=25 * MIB)
        await fleet.add(neuron)
        await fleet.placed("a")
        await fleet.placed("b")
        neuron.work("a", 1)
        await fleet.heard(neuron)
        neuron.work("a", 0)
        await fleet.heard(neuron)
        await eventually(lambda: _would_evict(fleet, "c", "b"))  # b is kept as long as it loaded

        steps = await fleet.ensure("c")

        evicting = [s.evicting for s in steps if s.WhichOneof("event") == "evicting"]
        assert [list(e.victim_models) for e in evicting][:1] == [["b"]]
        assert neuron.unloads == ["b"]
        assert neuron.loaded() == ["a", "c"]


async def _would_evict(fleet, model: str, victim: str) -> bool:
    told = await fleet.operator.ExplainPlacement(op.ExplainPlacementRequest(model=model))
    return list(told.candidates[0].evicted_models) == [victim]


async def test_nothing_with_work_in_flight_is_evicted_it_is_drained_after_patience(tmp_path):
    async with running_fleet(document(tmp_path, THREE)) as fleet:
        neuron = ScriptedNeuron("one", capacity=15 * MIB)
        await fleet.add(neuron)
        await fleet.placed("a")
        neuron.work("a", 2)
        await fleet.heard(neuron)
        waiting = asyncio.create_task(fleet.ensure("b"))
        await eventually(lambda: neuron.unloads == ["a"])
        assert len(neuron.instances) == 1  # draining: its requests go on

        neuron.work("a", 0)
        steps = await waiting

        assert steps[-1].placed.model == "b"
        queued = [s.queued for s in steps if s.WhichOneof("event") == "queued"]
        assert any("requests in flight" in each.reason for each in queued)
        assert {each.position for each in queued} == {1}


async def test_out_of_memory_evicts_and_tries_once_more(tmp_path):
    async with running_fleet(document(tmp_path, THREE)) as fleet:
        neuron = ScriptedNeuron("one", capacity=25 * MIB)
        await fleet.add(neuron)
        await fleet.placed("a")
        neuron.script("b").bytes = 20 * MIB  # twice what the catalogue says

        placed = await fleet.placed("b")

        assert placed.model == "b"
        assert [s.model for s in neuron.loads] == ["a", "b", "b"]
        assert neuron.unloads == ["a"]


async def test_out_of_memory_goes_elsewhere_if_it_can(tmp_path):
    async with running_fleet(document(tmp_path, THREE)) as fleet:
        one, two = ScriptedNeuron("one", capacity=12 * MIB), ScriptedNeuron("two")
        await fleet.add(one)
        await fleet.add(two)
        for neuron in (one, two):
            neuron.script("b").bytes = 20 * MIB
        two.capacity = 24 * MIB
        one.script("b").failures = [FleetError(Reason.OUT_OF_MEMORY, "no")]
        two.script("b").failures = []

        placed = await fleet.placed("b")

        assert placed.neuron == "two"


async def test_two_failures_end_the_wait_with_the_neurons_reason(tmp_path):
    async with running_fleet(document(tmp_path, THREE)) as fleet:
        neuron = ScriptedNeuron("one")
        await fleet.add(neuron)
        neuron.script("a").failures = [FleetError(Reason.LOAD_FAILED, f"no {i}") for i in (1, 2)]

        with pytest.raises(FleetError) as refused:
            await fleet.ensure("a")

        assert refused.value.reason is Reason.LOAD_FAILED
        assert refused.value.reason.row.http == 502
        assert len(neuron.loads) == 2
        with pytest.raises(FleetError) as again:
            await fleet.ensure("a")
        assert again.value.retry_after_seconds
        assert len(neuron.loads) == 2


async def test_a_bad_model_file_is_not_tried_twice(tmp_path):
    async with running_fleet(document(tmp_path, THREE)) as fleet:
        neuron = ScriptedNeuron("one")
        await fleet.add(neuron)
        neuron.script("a").failures = [FleetError(Reason.MODEL_FILE_BAD, "truncated")]

        with pytest.raises(FleetError) as refused:
            await fleet.ensure("a")

        assert refused.value.reason is Reason.MODEL_FILE_BAD
        assert len(neuron.loads) == 1


async def test_an_excluded_instance_is_not_answered_again(tmp_path):
    models = THREE.replace('id = "a"', 'id = "a"\nreplicas = { max = 2 }')
    async with running_fleet(document(tmp_path, models)) as fleet:
        await fleet.add(ScriptedNeuron("one"))
        await fleet.add(ScriptedNeuron("two"))
        first = await fleet.placed("a")

        second = await fleet.placed("a", excluded_instance_ids=[first.instance_id])

        assert second.instance_id != first.instance_id
        assert second.neuron != first.neuron
        with pytest.raises(FleetError) as refused:
            await fleet.ensure("a", excluded_instance_ids=[first.instance_id, second.instance_id])
        assert refused.value.reason is Reason.NO_ROOM


async def test_models_on_disk_are_placed_without_a_catalogue(tmp_path):
    async with running_fleet(document(tmp_path, "")) as fleet:
        await fleet.add(ScriptedNeuron("one"))
        holder = ScriptedNeuron("two")
        holder.stores("found")
        await fleet.add(holder)

        placed = await fleet.placed("found")

        assert placed.neuron == "two"


async def test_three_models_on_two_small_neurons_all_answer_and_nothing_overlaps(tmp_path):
    async with running_fleet(document(tmp_path, THREE)) as fleet:
        neurons = [ScriptedNeuron(n, capacity=15 * MIB) for n in ("one", "two")]
        for neuron in neurons:
            await fleet.add(neuron)

        names = [name for _ in range(10) for name in "abc"]
        placed = await asyncio.gather(*(fleet.placed(n) for n in names))

        assert [p.model for p in placed] == names
        assert [n.overlaps for n in neurons] == [[], []]
