"""OperatorService over real gRPC: what it says it did is what happened."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from cortex.v1 import operator_service_pb2 as op
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.status import from_rpc_error
from tests.doubles.processes import free_port
from tests.doubles.registry_neuron import MIB, ScriptedNeuron, eventually
from tests.doubles.registry_stand_ins import Fleet, document, running_fleet
from tests.integration.registry.two_models import TWO


async def collected(call: Any) -> list[Any]:
    """All answers of a streaming call.

    Raises:
        FleetError: as the registry said it.
    """
    answers: list[Any] = []
    try:
        async for answer in call:
            answers.append(answer)  # noqa: PERF401 - what came before an error is wanted too
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    return answers


async def refusal(call: Any) -> FleetError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value)


async def explained(fleet: Fleet, model: str) -> op.ExplainPlacementResponse:
    return await fleet.operator.ExplainPlacement(op.ExplainPlacementRequest(model=model))


async def test_load_on_a_named_neuron_streams_to_placed(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        await fleet.add(ScriptedNeuron("one"))
        await fleet.add(ScriptedNeuron("two"))

        steps = await collected(
            fleet.operator.LoadModel(op.LoadModelRequest(model="first", neuron="two"))
        )

        assert steps[-1].step.placed.neuron == "two"


async def test_a_load_goes_on_when_the_operator_leaves(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        neuron = ScriptedNeuron("one", capacity=15 * MIB)
        await fleet.add(neuron)
        neuron.script("a").gate.clear()
        call = fleet.operator.LoadModel(op.LoadModelRequest(model="a"))
        await eventually(lambda: neuron.loads)
        call.cancel()
        competing = asyncio.create_task(fleet.ensure("b"))

        neuron.script("a").gate.set()

        await eventually(lambda: neuron.loads[0].model == "a" and neuron.instances)
        assert neuron.cancelled_loads == []
        await competing


async def test_unload_waits_for_the_work_and_says_what_is_left(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        neuron = ScriptedNeuron("one")
        await fleet.add(neuron)
        await fleet.placed("a")
        neuron.work("a", 3)
        await fleet.heard(neuron)
        task = asyncio.create_task(
            collected(fleet.operator.UnloadModel(op.UnloadModelRequest(model="a")))
        )
        await eventually(lambda: neuron.unloads == ["a"])
        assert neuron.instances

        neuron.work("a", 0)
        answers = await task

        assert (answers[0].instances_left, answers[0].active_requests_left) == (1, 3)
        assert (answers[-1].instances_left, answers[-1].freed_bytes) == (0, 10 * MIB)
        assert not neuron.instances


async def test_unloading_what_is_not_loaded_is_an_error(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        await fleet.add(ScriptedNeuron("one"))

        with pytest.raises(FleetError, match="not loaded"):
            await collected(fleet.operator.UnloadModel(op.UnloadModelRequest(model="a")))


async def test_a_pin_is_kept_loaded_and_protects(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        neuron = ScriptedNeuron("one", capacity=15 * MIB)
        await fleet.add(neuron)

        await fleet.operator.PinModel(op.PinModelRequest(model="a"))

        await eventually(lambda: neuron.loaded() == ["a"])
        await fleet.heard(neuron)
        with pytest.raises(FleetError) as refused:
            await fleet.ensure("b")
        assert refused.value.reason is Reason.NO_ROOM
        assert "a (pinned)" in refused.value.message
        await fleet.operator.UnpinModel(op.UnpinModelRequest(model="a"))
        assert (await fleet.placed("b")).model == "b"


async def test_a_pin_on_a_neuron_loads_it_there(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        one, two = ScriptedNeuron("one"), ScriptedNeuron("two")
        await fleet.add(one)
        await fleet.add(two)

        await fleet.operator.PinModel(op.PinModelRequest(model="a", neuron="two"))

        await eventually(lambda: two.loaded() == ["a"])


async def test_the_fleet_says_why_a_pinned_model_is_not_loaded(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        neuron = ScriptedNeuron("one", capacity=15 * MIB)
        broken = FleetError(Reason.MODEL_FILE_BAD, "the file is cut off.")
        neuron.script("a").failures += [broken] * 9
        await fleet.add(neuron)

        await fleet.operator.PinModel(op.PinModelRequest(model="a"))

        await eventually(lambda: _problem(fleet, "a", "the file is cut off. (next attempt in "))
        await fleet.operator.UnpinModel(op.UnpinModelRequest(model="a"))
        neuron.script("a").failures.clear()
        await fleet.operator.PinModel(op.PinModelRequest(model="a"))
        await collected(fleet.operator.LoadModel(op.LoadModelRequest(model="a")))
        await eventually(lambda: _problem(fleet, "a", ""))


async def test_the_fleet_says_why_a_pinned_model_has_no_place(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        await fleet.add(ScriptedNeuron("small", capacity=1 * MIB))

        await fleet.operator.PinModel(op.PinModelRequest(model="a"))
        await eventually(lambda: _problem(fleet, "a", "small: "))

        await fleet.add(ScriptedNeuron("large"))
        await eventually(lambda: _problem(fleet, "a", ""))


async def _problem(fleet, model, words):
    """Whether the fleet says that of a model; empty words: whether it says nothing."""
    answer = await fleet.operator.GetFleet(op.GetFleetRequest())
    problems = [one.problem for one in answer.pending if one.model == model and one.problem]
    return bool(words) == bool(problems) and all(words in problem for problem in problems)


async def test_a_pin_of_the_catalogue_ends_in_the_catalogue(tmp_path):
    models = TWO.replace('id = "a"', 'id = "a"\npin = true')
    async with running_fleet(document(tmp_path, models)) as fleet:
        error = await refusal(fleet.operator.UnpinModel(op.UnpinModelRequest(model="a")))

        assert "catalogue" in error.message


async def test_a_cordon_keeps_placements_off_and_requests_on(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        one, two = ScriptedNeuron("one"), ScriptedNeuron("two")
        await fleet.add(one)
        await fleet.add(two)
        first = await fleet.placed("a")

        answer = await fleet.operator.CordonNeuron(op.CordonNeuronRequest(neuron=first.neuron))

        assert answer.neuron.cordoned
        assert (await fleet.placed("a")).instance_id == first.instance_id
        assert (await fleet.placed("b")).neuron != first.neuron
        answer = await fleet.operator.UncordonNeuron(op.UncordonNeuronRequest(neuron=first.neuron))
        assert not answer.neuron.cordoned


async def test_drain_streams_what_is_left_and_leaves_the_neuron_cordoned_and_empty(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        neuron = ScriptedNeuron("one")
        await fleet.add(neuron)
        await fleet.placed("a")
        await fleet.placed("b")
        neuron.work("a", 1)
        await fleet.heard(neuron)
        task = asyncio.create_task(
            collected(fleet.operator.DrainNeuron(op.DrainNeuronRequest(neuron="one")))
        )
        await eventually(lambda: [i.spec.model for i in neuron.instances.values()] == ["a"])

        neuron.work("a", 0)
        answers = await task

        left = [(a.instances_left, a.active_requests_left) for a in answers]
        assert left[0] == (2, 1)
        assert left[-1] == (0, 0)
        candidates = (await explained(fleet, "a")).candidates
        assert "cordoned" in candidates[0].reason


@pytest.mark.parametrize(
    ("rpc", "request_"),
    [
        ("CordonNeuron", op.CordonNeuronRequest(neuron="nobody")),
        ("UncordonNeuron", op.UncordonNeuronRequest(neuron="nobody")),
        ("PinModel", op.PinModelRequest(model="nobody")),
        ("ExplainPlacement", op.ExplainPlacementRequest(model="nobody")),
    ],
)
async def test_unknown_names_are_not_found(tmp_path, rpc, request_):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        error = await refusal(getattr(fleet.operator, rpc)(request_))

        assert error.reason.row.grpc is grpc.StatusCode.NOT_FOUND
        assert "nobody" in error.message


async def test_explain_names_each_candidate_with_its_reason_and_changes_nothing(tmp_path):
    models = (
        TWO
        + '[[models]]\nid = "c"\nsource = "path:/c"\nmemory = "10MiB"\nlabels = { zone = "x" }\n'
    )
    async with running_fleet(document(tmp_path, models)) as fleet:
        full, small = (
            ScriptedNeuron("full", capacity=15 * MIB),
            ScriptedNeuron("small", capacity=5 * MIB),
        )
        full.labels = {"zone": "x"}
        await fleet.add(full)
        await fleet.add(small)
        await fleet.placed("a")
        await fleet.heard(full)

        answer = await explained(fleet, "b")

        assert answer.verdict in {op.PLACEMENT_VERDICT_EVICT, op.PLACEMENT_VERDICT_WAIT}
        assert [c.neuron for c in answer.candidates] == ["full", "small"]
        assert answer.candidates[0].predicted.ToSeconds() > 0
        assert not answer.candidates[1].feasible
        assert "the largest has 5.0 MiB" in answer.candidates[1].reason
        assert (answer.required_bytes, answer.footprint_source) == (10 * MIB, "catalogue")
        assert (await explained(fleet, "a")).verdict == op.PLACEMENT_VERDICT_ALREADY_LOADED
        labels = (await explained(fleet, "c")).candidates
        assert {c.neuron: c.reason for c in labels}["small"] == "it lacks the label zone=x"
        assert full.unloads == []


async def test_reload_says_what_changed_and_outdated_replicas_are_loaded_anew(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        neuron = ScriptedNeuron("one")
        await fleet.add(neuron)
        first = await fleet.placed("a")
        edited = TWO.replace('source = "path:/a"', 'source = "path:/a2"')
        edited = edited.replace('id = "b"', 'id = "c"')
        (tmp_path / "models.toml").write_text(edited)

        answer = await fleet.operator.ReloadCatalogue(op.ReloadCatalogueRequest())

        assert (list(answer.added), list(answer.removed), list(answer.changed)) == (
            ["c"],
            ["b"],
            ["a"],
        )
        again = await fleet.placed("a")
        assert again.instance_id != first.instance_id
        assert [s.source for s in neuron.loads] == ["path:/a", "path:/a2"]


async def test_what_says_nothing_of_the_load_is_taken_in_without_one(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        neuron = ScriptedNeuron("one")
        await fleet.add(neuron)
        first = await fleet.placed("a")
        words = (
            'aliases = ["other"]\ndescription = "other words"\n'
            "price = { input = 1.0 }\nsampling = { temperature = 0.9 }\nlimits = { wait = 33 }"
        )
        edited = TWO.replace('aliases = ["first"]', words)
        (tmp_path / "models.toml").write_text(edited)

        answer = await fleet.operator.ReloadCatalogue(op.ReloadCatalogueRequest())

        assert list(answer.changed) == ["a"]
        again = await fleet.placed("other")
        assert again.instance_id == first.instance_id
        assert len(neuron.loads) == 1
        assert not neuron.unloads


async def test_a_reload_with_an_error_changes_nothing(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        await fleet.add(ScriptedNeuron("one"))
        (tmp_path / "models.toml").write_text(TWO + "[[models]]\nid = 7\n")

        error = await refusal(fleet.operator.ReloadCatalogue(op.ReloadCatalogueRequest()))

        assert error.reason is Reason.BAD_REQUEST
        assert "models[2].id" in error.message
        assert (await fleet.placed("b")).model == "b"


async def test_preloads_and_minimum_replicas_come_by_themselves(tmp_path):
    models = TWO.replace('id = "a"', 'id = "a"\npreload = true').replace(
        'id = "b"', 'id = "b"\nreplicas = { min = 2 }'
    )
    async with running_fleet(document(tmp_path, models)) as fleet:
        one, two = ScriptedNeuron("one"), ScriptedNeuron("two")
        await fleet.add(one)
        await fleet.add(two)

        await eventually(lambda: sorted(one.loaded() + two.loaded()) == ["a", "b", "b"])


async def test_idle_models_go_and_keep_alive_of_zero_unloads_after_use(tmp_path):
    models = TWO.replace('id = "a"', 'id = "a"\nidle_timeout = 0.1')
    async with running_fleet(document(tmp_path, models)) as fleet:
        neuron = ScriptedNeuron("one")
        await fleet.add(neuron)
        await fleet.placed("a")
        from google.protobuf import duration_pb2

        await fleet.placed("b", keep_alive=duration_pb2.Duration())

        await eventually(lambda: not neuron.instances)

        assert sorted(neuron.unloads) == ["a", "b"]


async def test_a_worn_worker_is_recycled_when_it_is_idle(tmp_path):
    settings = document(tmp_path, TWO, eviction={"defrag_after_cycles": 3})
    async with running_fleet(settings) as fleet:
        neuron = ScriptedNeuron("one")
        await fleet.add(neuron)
        await fleet.placed("a")
        neuron.work("a", 1)
        neuron.load_cycles = 3
        neuron.changed()
        await fleet.heard(neuron)
        assert neuron.unloads == []

        neuron.work("a", 0)

        await eventually(lambda: neuron.unloads == ["a"])


async def test_a_model_whose_replicas_are_full_gets_another_into_free_room(tmp_path):
    models = TWO.replace('id = "a"', 'id = "a"\nreplicas = { max = 2 }')
    settings = document(tmp_path, models, eviction={"scale_up_after_seconds": 0.1})
    async with running_fleet(settings) as fleet:
        one, two = ScriptedNeuron("one"), ScriptedNeuron("two")
        await fleet.add(one)
        await fleet.add(two)
        first = await fleet.placed("a")
        holder = one if first.neuron == "one" else two
        holder.instances[first.instance_id].queued_requests = 4
        holder.changed()

        await eventually(lambda: (one.loaded(), two.loaded()) == (["a"], ["a"]))


async def test_the_metrics_count_loads_evictions_and_neurons(tmp_path):
    import urllib.request

    port = free_port()
    settings = document(tmp_path, TWO, metrics_listen=f"127.0.0.1:{port}")
    async with running_fleet(settings) as fleet:
        neuron = ScriptedNeuron("one", capacity=15 * MIB)
        await fleet.add(neuron)
        await fleet.placed("a")
        await fleet.placed("b")
        url = f"http://127.0.0.1:{port}/metrics"
        text = (await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())).decode()

        assert 'cortex_registry_loads_total{model="a",outcome="ready"} 1.0' in text
        assert 'cortex_registry_evictions_total{reason="evicted"} 1.0' in text
        assert 'cortex_registry_neurons{state="attached"} 1.0' in text
        assert "cortex_registry_placement_seconds_bucket" in text
        assert "# TYPE cortex_registry_load_seconds histogram" in text
        facts = (await fleet.operator.GetFleet(op.GetFleetRequest())).registry
        assert (facts.loads_total, facts.evictions_total, facts.role) == (2, 1, "leader")
