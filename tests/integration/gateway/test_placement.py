"""Models that are not loaded, registries that are not there."""

from __future__ import annotations

import asyncio

from cortex.v1 import model_pb2
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.errors import FleetError, Reason
from services.gateway.routing import registry_client
from tests.doubles.stand_in_registry import placed
from tests.integration.gateway.fleet import Fleet, contents, lines

LOADING = registry.EnsureModelResponse(
    loading=registry.PlacementLoading(
        neuron="n1",
        progress=model_pb2.LoadProgress(
            phase=model_pb2.LOAD_PHASE_LOADING, modules_done=3, modules_total=12
        ),
    )
)
EVICTING = registry.EnsureModelResponse(
    evicting=registry.PlacementEvicting(neuron="n1", victim_models=["other"])
)


async def test_an_unknown_model_is_named_in_a_404(fleet: Fleet) -> None:
    await fleet.add_neuron()

    response = await fleet.chat(model="nonesuch", stream=True)

    assert response.status_code == 404
    assert "nonesuch" in response.json()["error"]["message"]
    assert response.json()["error"]["code"] == "model_not_found"


async def test_a_placement_carries_the_id_of_its_request(bare: Fleet) -> None:
    await bare.start()
    neuron = await bare.add_neuron("n1", models=())
    bare.registry.steps = [placed("n1", neuron.address, "n1/tiny", "tiny")]

    response = await bare.chat()

    assert response.headers["x-request-id"]
    assert [one.request_id for one in bare.registry.ensured] == [response.headers["x-request-id"]]


async def test_an_alias_is_resolved_and_repeated_to_the_client(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron()

    response = await fleet.chat(model="tiny-alias")

    assert neuron.requests[0].model == "tiny"
    assert response.json()["model"] == "tiny-alias"


async def test_a_model_that_is_not_loaded_is_placed_and_the_wait_is_told(bare: Fleet) -> None:
    await bare.start(keepalive_seconds=0.1)
    neuron = await bare.add_neuron("n1", models=())
    loaded = asyncio.Event()
    bare.registry.steps = [
        EVICTING, LOADING, loaded, placed("n1", neuron.address, "n1/tiny", "tiny"),
    ]  # fmt: skip

    seen: list[str] = []
    async with bare.streamed() as response:
        async for line in lines(response):
            seen.append(line)
            if "loading on n1, 25 %" in line:
                loaded.set()

    assert any(line.startswith(": loading") for line in seen)
    assert "".join(contents("\n".join(seen))) == "Hello world"
    assert bare.metric("cortex_gateway_cold_starts_total", model="tiny") == 1
    assert bare.metric("cortex_gateway_evictions_total", model="other") == 1
    assert bare.registry.ensured[0].model == "tiny"


async def test_a_model_that_finds_no_room_is_a_503_with_its_pause(fleet: Fleet) -> None:
    response = await fleet.chat()

    assert response.status_code == 503
    assert response.headers["retry-after"] == "7"
    assert response.json()["error"]["code"] == "no_room"


async def test_a_load_that_fails_is_told(fleet: Fleet) -> None:
    fleet.registry.steps = [LOADING, FleetError(Reason.LOAD_FAILED, "The file is short.")]

    response = await fleet.chat()

    assert response.status_code == 502
    assert "The file is short." in response.text


async def test_who_waits_when_the_registry_stops_is_placed_by_the_next_one(bare: Fleet) -> None:
    await bare.start()
    neuron = await bare.add_neuron("n1", models=())
    bare.registry.steps = [EVICTING, FleetError(Reason.SHUTTING_DOWN, "The registry is stopping.")]
    waiting = asyncio.create_task(bare.chat())
    async with asyncio.timeout(60):
        while not bare.registry.ensured:
            await asyncio.sleep(0.01)

    bare.registry.steps = [placed("n1", neuron.address, "n1/tiny", "tiny")]

    assert (await waiting).status_code == 200


async def test_a_request_before_the_registry_is_reached_waits_for_it(bare: Fleet) -> None:
    address = await bare.registry.start()
    await bare.registry.stop()
    bare.registry.address = address
    await bare.start_gateway(is_early=True)
    waiting = asyncio.create_task(bare.chat())
    assert (await bare.client.get("/readyz")).status_code == 503

    bare.registry.add_model("tiny")
    await bare.registry.start(address)
    await bare.add_neuron()

    assert (await waiting).status_code == 200


async def test_an_unknown_model_waits_while_the_registry_waits_for_its_neurons(
    bare: Fleet,
) -> None:
    bare.registry.catalogue.settling = True
    await bare.start()
    waiting = asyncio.create_task(bare.chat(model="on-disk"))
    other = asyncio.create_task(bare.chat(model="nonesuch"))
    neuron = await bare.add_neuron(models=("on-disk",))
    assert (await waiting).status_code == 200
    assert neuron.requests[0].model == "on-disk"
    assert not other.done()

    bare.registry.catalogue.settling = False
    bare.registry.add_model("on-disk")

    assert (await other).status_code == 404


async def test_a_stream_that_has_begun_outwaits_a_registry_that_is_long_away(
    bare: Fleet, monkeypatch
) -> None:
    monkeypatch.setattr(registry_client, "REGISTRY_OUTAGE_SECONDS", 0.0)
    await bare.start(keepalive_seconds=0.05)
    neuron = await bare.add_neuron("n1", models=())
    loaded = asyncio.Event()
    away = FleetError(Reason.REGISTRY_UNAVAILABLE, "Nobody answers.")
    bare.registry.steps = [EVICTING, loaded, away]

    seen: list[str] = []
    async with bare.streamed() as response:  # a comment has come: the client cannot ask again
        loaded.set()
        async with asyncio.timeout(60):
            while len(bare.registry.ensured) < 3:
                await asyncio.sleep(0.01)
        bare.registry.steps = [placed("n1", neuron.address, "n1/tiny", "tiny")]
        seen = [line async for line in lines(response)]

    assert "".join(contents("\n".join(seen))) == "Hello world"


async def test_who_waits_for_a_registry_in_vain_is_told_so(bare: Fleet, monkeypatch) -> None:
    monkeypatch.setattr(registry_client, "REGISTRY_OUTAGE_SECONDS", 0.2)
    address = await bare.registry.start()
    await bare.registry.stop()
    bare.registry.address = address
    await bare.start_gateway(is_early=True)

    response = await bare.chat()

    assert response.status_code == 503
    assert response.headers["retry-after"]


async def test_a_placement_that_takes_too_long_is_given_up(bare: Fleet) -> None:
    await bare.start(placement_seconds=0.2)
    bare.registry.steps = [asyncio.Event()]

    response = await bare.chat()

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "queue_timeout"


async def test_loaded_models_are_served_while_the_registry_is_away(fleet: Fleet) -> None:
    await fleet.add_neuron()
    await fleet.registry.stop()

    assert (await fleet.chat()).status_code == 200
    assert (await fleet.client.get("/readyz")).status_code == 200


async def test_a_restarted_registry_that_knows_nobody_yet_takes_nothing_away(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron()
    address = fleet.registry.address
    await fleet.registry.stop()
    fleet.registry.neurons.clear()
    fleet.registry.incarnation = "second"
    await fleet.registry.start(address)
    async with asyncio.timeout(60):
        while fleet.gateway.services.view.registry_incarnation_id != "second":
            await fleet.gateway.services.view.changed()

    assert (await fleet.chat()).status_code == 200
    assert len(neuron.requests) == 1


async def test_the_watch_resumes_behind_the_last_revision(fleet: Fleet) -> None:
    await fleet.add_neuron()
    revision = fleet.gateway.services.view.revision
    address = fleet.registry.address
    await fleet.registry.stop()
    await fleet.registry.start(address)
    async with asyncio.timeout(60):
        while len(fleet.registry.watched) < 2:
            await fleet.gateway.services.view.changed()

    assert fleet.registry.watched[1].after_revision == revision
    assert fleet.registry.watched[1].registry_incarnation_id == "first"


async def test_an_outdated_copy_gets_no_work(fleet: Fleet) -> None:
    fleet.registry.catalogue.models[0].config_revision = 2
    fleet.registry.add_model("other")
    neuron = await fleet.add_neuron()
    outdated = neuron.described()
    outdated.report.instances[0].spec.config_revision = 1
    fleet.registry.put(outdated)
    async with asyncio.timeout(60):
        await fleet.gateway.services.view.changed()

    response = await fleet.chat()

    assert response.status_code == 503
    assert len(fleet.registry.ensured) == 1


async def test_counting_and_embedding_are_routed_as_well(fleet: Fleet) -> None:
    first = await fleet.add_neuron("a")
    await fleet.add_neuron("b")
    fleet.gateway.services.dispatch._outstanding.take("b/tiny")
    first.unary_refusals.append(FleetError(Reason.NEURON_LOST, "No."))

    counted = await fleet.client.post(
        "/v1/messages/count_tokens",
        json={"model": "tiny-alias", "messages": [{"role": "user", "content": "Hi"}]},
    )
    embedded = await fleet.client.post(
        "/v1/embeddings", json={"model": "tiny", "input": ["one", "two"]}
    )

    assert counted.json() == {"input_tokens": 11}
    assert embedded.status_code == 200
    assert len(embedded.json()["data"]) == 2


async def test_models_are_listed_with_their_aliases(fleet: Fleet) -> None:
    await fleet.add_neuron()

    listed = (await fleet.client.get("/v1/models")).json()

    assert {"tiny", "tiny-alias"} <= {entry["id"] for entry in listed["data"]}
