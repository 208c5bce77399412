"""`/ui/events`, `/ui/requests` and `/ui/usage` over real sockets."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

from cortex.v1 import registry_service_pb2 as registry
from services.backplane.errors import FleetError, Reason
from services.gateway.api.operators.call import FOR_OPERATORS, MOST_STREAMS
from services.gateway.settings import ApiKey, AuthSettings
from tests.doubles.scripted_neuron import Script, text
from tests.integration.gateway.event_reader import EventReader, events
from tests.integration.gateway.fleet import Fleet, chat_body


async def test_a_snapshot_comes_first_with_all_that_is_there(fleet: Fleet) -> None:
    await fleet.add_neuron("n1")

    async with events(fleet.client) as page:
        name, told = await page.next()

    assert name == "snapshot"
    assert page.response.headers["content-type"] == "text/event-stream"
    assert page.ids == [f"first:{fleet.gateway.services.view.revision}"]
    assert [one["name"] for one in told["neurons"]] == ["n1"]
    assert told["neurons"][0]["instances"][0]["model"] == "tiny"
    assert [one["model"] for one in told["models"]] == ["tiny"]
    assert told["visitor"]["console"] == "operate"
    assert told["registry"] == {"followed": True, "known": True, "settling": False}


async def test_then_come_neurons_that_change_and_those_that_leave(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron("n1")
    async with events(fleet.client) as page:
        await page.until("snapshot")

        await fleet.announce(neuron, draining=True)
        changed = await page.until("neuron")
        fleet.registry.remove("n1")
        gone = await page.until("neuron_removed")

    assert (changed["name"], changed["state"]) == ("n1", "draining")
    assert gone == {"name": "n1"}


async def test_a_changed_catalogue_is_told(fleet: Fleet) -> None:
    async with events(fleet.client) as page:
        await page.until("snapshot")
        fleet.registry.add_model("another")

        told = await page.until("catalogue")

    assert [one["model"] for one in told] == ["another", "tiny"]


async def test_a_report_that_changes_nothing_visible_is_not_told(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron("n1")
    async with events(fleet.client) as page:
        await page.until("snapshot")
        await fleet.announce(neuron)
        fleet.registry.add_model("another")

        seen = [await page.next() for _ in range(1)]
        while seen[-1][0] != "catalogue":
            seen.append(await page.next())

    assert "neuron" not in {name for name, _ in seen}


async def test_tokens_are_counted_while_they_are_made(fleet: Fleet) -> None:
    gate = asyncio.Event()
    many = [text("word ") for _ in range(50)]
    await fleet.add_neuron("n1", Script(events=[*many[:1], *many], gate=gate))
    async with events(fleet.client) as page, fleet.streamed() as answer:
        gate.set()
        rates = await page.until("rates", lambda told: told["instances"])
        await answer.aread()

    assert rates["tokens_per_second"] > 0
    assert rates["instances"]["n1/tiny"]["tokens_per_second"] > 0
    assert rates["instances"]["n1/tiny"]["cached_share"] == pytest.approx(3 / 7, abs=0.01)


async def test_a_request_is_told_at_its_end_without_its_content(fleet: Fleet) -> None:
    await fleet.add_neuron("n1", Script(events=[text("a secret answer")]))
    async with events(fleet.client) as page:
        await page.until("snapshot")
        await fleet.chat(messages=[{"role": "user", "content": "a secret question"}])

        told = await page.until("request")

    (seen,) = told["requests"]
    assert (seen["model"], seen["neuron"], seen["status"]) == ("tiny", "n1", 200)
    assert seen["prompt_tokens"] == 7
    assert "secret" not in str(told)


async def test_a_failed_request_tells_its_reason_and_never_its_words(fleet: Fleet) -> None:
    refusal = FleetError(Reason.BAD_REQUEST, "The word 'secret' is not wanted.")
    await fleet.add_neuron("n1", Script(refuse=refusal))

    await fleet.chat()
    listed = (await fleet.client.get("/ui/requests")).json()

    assert listed["requests"][0]["reason"] == "BAD_REQUEST"
    assert "secret" not in str(listed)


async def test_requests_can_be_narrowed(fleet: Fleet) -> None:
    await fleet.add_neuron("n1")
    await fleet.chat()
    await fleet.chat(model="unheard-of")

    listed = (await fleet.client.get("/ui/requests", params={"model": "tiny"})).json()
    newest = (await fleet.client.get("/ui/requests", params={"limit": 1})).json()

    assert [one["asked"] for one in listed["requests"]] == ["tiny"]
    assert [one["asked"] for one in newest["requests"]] == ["unheard-of"]
    assert newest["count"] == 2


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/ui/requests?limit=0", "limit"),
        ("/ui/requests?limit=501", "limit"),
        ("/ui/requests?limit=" + "1" * 5000, "limit"),
        ("/ui/requests?state=x", "state"),
        ("/ui/usage?by=moon", "by"),
        ("/ui/usage?window=1y", "window"),
        ("/ui/explain", "model"),
        ("/ui/explain?modell=x", "modell"),
    ],
)
async def test_a_bad_query_names_its_field(fleet: Fleet, path: str, field: str) -> None:
    answer = await fleet.client.get(path)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field


async def test_usage_is_counted_by_key_and_model(bare: Fleet) -> None:
    keys = (ApiKey(name="ann", key="a"), ApiKey(name="bob", key="b", console="view"))
    await bare.start(AuthSettings(keys=keys))
    await bare.add_neuron("n1")
    for key in ("a", "a", "b"):
        answer = await bare.client.post(
            "/v1/chat/completions", json=chat_body(), headers={"authorization": f"Bearer {key}"}
        )
        assert answer.status_code == 200

    bob = {"authorization": "Bearer b"}
    by_key = (await bare.client.get("/ui/usage", headers=bob)).json()
    by_model = (await bare.client.get("/ui/usage?by=model&window=15m", headers=bob)).json()

    assert [(row["name"], row["requests"]) for row in by_key["rows"]] == [("ann", 2), ("bob", 1)]
    assert by_key["total"]["prompt_tokens"] == 21
    assert [(row["name"], row["completion_tokens"]) for row in by_model["rows"]] == [("tiny", 6)]


async def test_what_waits_is_unknown_with_the_reason_where_no_registry_tells(fleet: Fleet) -> None:
    async with events(fleet.client) as page:
        await page.until("snapshot")
        told = await page.until("pending")

    assert told["placements"] == []
    assert told["problem"]


async def test_a_registry_that_goes_away_is_told(fleet: Fleet) -> None:
    async with events(fleet.client) as page:
        await page.until("snapshot")
        await fleet.registry.stop()

        told = await page.until("registry")

    assert told["followed"] is False


async def test_a_gateway_that_stops_ends_its_streams_at_once(fleet: Fleet) -> None:
    async with events(fleet.client) as page:
        await page.until("snapshot")
        fleet.shutdown.request()

        name, told = (await page.rest())[-1]

    assert name == "error"
    assert "shutting down" in told["error"]["message"]


async def test_a_key_that_is_taken_back_ends_its_streams(
    bare: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.console.events.BEAT_SECONDS", 0.05)
    viewer = ApiKey(name="viewer", key="view-key", console="view")
    other = ApiKey(name="other", key="other-key", console="view")
    await bare.start(AuthSettings(keys=(viewer, other)))

    async with events(bare.client, headers={"x-api-key": "view-key"}) as page:
        await page.until("snapshot")
        bare.gateway.services.auth.use(AuthSettings(keys=(other,)))

        name, told = (await page.rest())[-1]

    assert name == "error"
    assert "not known here" in told["error"]["message"]


async def test_a_large_fleet_is_shown(fleet: Fleet) -> None:
    """What waits unread for a client is bounded, and a snapshot may be larger than that."""
    view = fleet.gateway.services.view
    large = registry.Neuron()
    large.identity.name = "large"
    large.identity.labels["notes"] = "x" * (16 << 20)
    view.apply(
        registry.WatchFleetResponse(
            revision=(view.revision or 0) + 1,
            registry_incarnation_id=view.registry_incarnation_id,
            neuron_changed=large,
        )
    )

    async with fleet.client.stream("GET", "/ui/events") as page:
        count = 0
        async for piece in page.aiter_raw():
            count += len(piece)
            if count > 16 << 20:
                break

    assert count > 16 << 20


async def test_who_only_looks_leaves_room_for_operators(bare: Fleet) -> None:
    await bare.start(
        AuthSettings(
            keys=(
                ApiKey(name="viewer", key="view-key", console="view"),
                ApiKey(name="ops", key="ops-key", console="operate"),
            )
        )
    )
    viewer, operator = {"x-api-key": "view-key"}, {"x-api-key": "ops-key"}
    limits = httpx.Limits(max_connections=None)
    address = f"http://{bare.gateway.address}"
    async with (
        httpx.AsyncClient(base_url=address, limits=limits, trust_env=False) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(MOST_STREAMS - FOR_OPERATORS):
            page = await stack.enter_async_context(
                client.stream("GET", "/ui/events", headers=viewer)
            )
            assert page.status_code == 200

        assert (await client.get("/ui/requests", headers=viewer)).status_code == 429
        assert (await client.get("/ui/requests", headers=operator)).status_code == 200


async def test_only_so_many_streams_are_open(fleet: Fleet) -> None:
    async with asyncio.TaskGroup() as group:
        done = asyncio.Event()
        opened: list[EventReader] = []

        async def one() -> None:
            async with events(fleet.client) as page:
                await page.until("snapshot")
                opened.append(page)
                await done.wait()

        limits = httpx.Limits(max_connections=None)
        address = f"http://{fleet.gateway.address}"
        async with httpx.AsyncClient(base_url=address, limits=limits, trust_env=False) as client:
            await fleet.client.aclose()
            fleet.client = client
            for _ in range(MOST_STREAMS):
                group.create_task(one())
            while len(opened) < MOST_STREAMS:
                await asyncio.sleep(0.01)

            refused = await client.get("/ui/requests")
            done.set()

            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) > 0
