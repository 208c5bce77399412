"""kill -9 under load: what streams from a live neuron goes on, and the fleet mends itself."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.doubles.kubernetes_api import kubernetes_api
from tests.doubles.postgres_server import postgres
from tests.system.fleet.clients import Clients, has_text, two_loaded
from tests.system.fleet.conftest import BRISK, BUDGET
from tests.system.fleet.processes import until


@pytest.fixture(scope="module")
def postgres_url():
    """A PostgreSQL server of its own."""
    with postgres() as url:
        yield url


@pytest.fixture(params=["postgres", "kubernetes"])
def database(request):
    """Each store that several registries share."""
    if request.param == "postgres":
        yield request.getfixturevalue("postgres_url")
        return
    with kubernetes_api() as api:
        yield f"kubernetes://llm/fleet?server={api.url}"


async def seconds_until(condition):
    """Waits beside running streams; returns how long."""
    started = time.monotonic()
    await asyncio.to_thread(until, condition)
    return time.monotonic() - started


def instances(fleet):
    """The ids of all copies."""
    return {i.instance_id for n in fleet.state().neurons for i in n.report.instances}


async def test_a_killed_registry_cuts_nothing_and_rebuilds_its_picture(pair, measured):
    async with Clients(pair.url) as clients:
        first, second, absent = await two_loaded(pair, clients)
        before = instances(pair)
        running = [clients.begin(first, 6000)[1] for _ in range(3)]
        await seconds_until(lambda: pair.in_flight()[first] == 3)

        pair["registry"].kill()
        killed = time.monotonic()

        # loaded models are served while it is away; the third one waits for it to be back
        away = await clients.all([(first, 30), (second, 30)])
        waiting, waited = clients.begin(absent, 30)
        assert not pair["registry"].is_running
        pair["registry"].start()
        started = time.monotonic()
        await seconds_until(lambda: pair.live() == {"left", "right"})
        rebuilt = time.monotonic()
        same = instances(pair)
        assert before == same
        everyone = await asyncio.gather(*running, waited)

    assert [str(a) for a in [*away, *everyone] if not a.is_whole] == []
    measured(
        f"registry killed: rebuilt {rebuilt - started:.1f} s after its restart"
        f" ({rebuilt - killed:.1f} s after the kill);"
        f" a model that was not loaded answered {waiting.first_text - killed:.1f} s after the kill"
    )


async def test_a_killed_neuron_costs_its_own_streams_a_pause(pair, measured):
    async with Clients(pair.url) as clients:
        first, second, _ = await two_loaded(pair, clients)
        (lost, lost_stream), (kept, kept_stream) = (
            clients.begin(first, 12000),
            clients.begin(second, 12000),
        )
        await has_text(lost)
        await has_text(kept)

        pair["left"].kill()
        killed = time.monotonic()

        again, placing = clients.begin(first, 30)  # where there is room, once there is
        pair["left"].start()
        started = time.monotonic()
        await seconds_until(lambda: pair.live() == {"left", "right"})
        back = time.monotonic()
        await asyncio.gather(placing, kept_stream, lost_stream)

    assert kept.is_whole, kept
    assert again.is_whole, again
    assert lost.is_whole, lost
    measured(
        f"neuron killed: it was back {back - started:.1f} s after its restart; its model answered"
        f" {again.first_text - killed:.1f} s after the kill; its stream paused"
        f" {lost.longest_gap:.1f} s"
    )


@pytest.mark.slow
async def test_without_a_restart_the_other_neuron_takes_over(fleet, measured):
    fleet.add_registry(settings=BRISK)
    for name in ("left", "right"):
        fleet.add_neuron(name, settings=BUDGET)
    fleet.add_gateway()
    fleet.wait("left", "right")
    async with Clients(fleet.url) as clients:
        first, second, _ = await two_loaded(fleet, clients)
        kept, kept_stream = clients.begin(second, 6000)
        await has_text(kept)

        fleet["left"].kill()
        killed = time.monotonic()
        again = await clients.stream(first, 30)

        assert again.is_whole, again
        assert (await kept_stream).is_whole, kept
    measured(
        f"neuron killed for good: its model answered {again.first_text - killed:.1f} s after the"
        " kill, on the other one, whose stream ended first"
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_killed_leader_is_followed_by_its_stand_by(fleet, database, measured):
    """Three times over, so that either has followed the other; a restarted one stands by."""
    for name in ("one", "two"):
        fleet.add_registry(name, store=database, settings=BRISK)
    for name in ("left", "right"):
        fleet.add_neuron(name, settings=BUDGET)
    fleet.add_gateway()
    fleet.wait("left", "right")
    async with Clients(fleet.url) as clients:
        for _ in range(3):
            await kill_the_leader(fleet, clients, measured)


async def kill_the_leader(fleet, clients, measured):
    """Under load, and with somebody waiting for a swap; then it is started again."""
    await seconds_until(lambda: fleet.roles() == ["leader", "standby"])
    leader = fleet.state().registry.leader_address
    name = ("one", "two")[fleet.registries.index(leader)]
    *held, absent = await two_loaded(fleet, clients)
    before = instances(fleet)
    running = [clients.begin(model, 4000)[1] for model in held for _ in range(2)]
    await seconds_until(lambda: all(fleet.in_flight()[model] for model in held))
    early, waited_early = clients.begin(absent, 30)
    await seconds_until(lambda: fleet.waiting() == {absent: 1})

    fleet[name].kill()
    killed = time.monotonic()
    away = await clients.all([(model, 30) for model in held])
    late, waited_late = clients.begin(absent, 30)
    await seconds_until(lambda: fleet.live() == {"left", "right"})
    led = time.monotonic() - killed
    assert fleet.state().registry.leader_address != leader
    assert before == instances(fleet)
    everyone = await asyncio.gather(*running, waited_early, waited_late)

    assert [str(a) for a in [*away, *everyone] if not a.is_whole] == []
    busy_until = max(answer.ended for answer in everyone[:4])
    fleet[name].start()
    await seconds_until(lambda: fleet.roles() == ["leader", "standby"])
    measured(
        f"leader killed: the stand-by led with both neurons after {led:.2f} s; who waited for a"
        f" swap was answered {early.first_text - killed:.1f} s, who asked then"
        f" {late.first_text - killed:.1f} s after the kill (both neurons had streams to end first,"
        f" the last one after {busy_until - killed:.1f} s)"
    )


@pytest.mark.slow
async def test_an_api_server_that_is_away_cuts_nothing(fleet):
    """Nobody leads then; what is loaded is served, and what is not waits until somebody does."""
    with kubernetes_api() as api:
        for name in ("one", "two"):
            url = f"kubernetes://llm/fleet?server={api.url}"
            fleet.add_registry(name, store=url, settings=f"leader_lease_seconds = 2.0\n{BRISK}")
        for name in ("left", "right"):
            fleet.add_neuron(name, settings=BUDGET)
        fleet.add_gateway()
        fleet.wait("left", "right")
        async with Clients(fleet.url) as clients:
            first, second, absent = await two_loaded(fleet, clients)
            before = instances(fleet)
            running = [clients.begin(model, 4000)[1] for model in (first, second)]

            api.is_away = True
            await seconds_until(lambda: fleet.roles() == ["standby", "standby"])
            away = await clients.all([(first, 30), (second, 30)])
            _, waited = clients.begin(absent, 30)
            api.is_away = False
            await seconds_until(lambda: fleet.roles() == ["leader", "standby"])
            await seconds_until(lambda: fleet.live() == {"left", "right"})
            assert before == instances(fleet)
            everyone = await asyncio.gather(*running, waited)

    assert [str(a) for a in [*away, *everyone] if not a.is_whole] == []


@pytest.mark.slow
async def test_pins_and_cordons_are_the_next_leaders_too(fleet, database):
    for name in ("one", "two"):
        fleet.add_registry(name, store=database, settings=BRISK)
    fleet.add_neuron("left", settings=BUDGET)
    fleet.add_gateway()
    fleet.wait("left")
    leader = fleet.state().registry.leader_address
    name = ("one", "two")[fleet.registries.index(leader)]
    await seconds_until(lambda: fleet.roles() == ["leader", "standby"])
    fleet.registries.sort(key=lambda address: address == leader)
    assert "left" in fleet.cli("status").stdout, "the stand-by's answer is the leader's"
    fleet.cli("cordon", "left")  # asked of the stand-by, done by the leader
    fleet.registries.reverse()

    fleet[name].kill()
    until(lambda: fleet.live() == {"left"})

    assert fleet.is_cordoned("left")
