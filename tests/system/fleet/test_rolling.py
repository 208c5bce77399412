"""Everything is restarted, one after the other, under 64 streams: no client sees anything of it."""

from __future__ import annotations

import asyncio
import time

import pytest

from bench.chaos.parts import GATEWAYS, KEY, NEURONS, REGISTRIES, fleet_of_two, holds
from bench.traffic.clients import SdkClients
from bench.traffic.load import Habits, Load, question

STREAMS = 64
STEADY = 4
TOKENS = 300
PATIENCE_SECONDS = 240.0
# A gateway that is stopped for good has nobody to move its answers to: it waits for them.
DRAIN = "drain_seconds = 200"


async def hand_over(parts, name):
    """As `kill -USR2` at an upgrade: the successor has the socket, the old one its answers."""
    old = await asyncio.to_thread(parts.service(name).hand_over)
    assert await asyncio.to_thread(old.wait, PATIENCE_SECONDS) == 0


async def restart(parts, name):
    """As `systemctl restart`."""
    service = parts.service(name)
    assert await asyncio.to_thread(service.end, PATIENCE_SECONDS) == 0
    await asyncio.to_thread(service.start)


async def drain_and_restart(parts, name):
    """As docs/operating.md has it: what runs moves at once, then the neuron is restarted."""
    await asyncio.to_thread(parts.fleet.cli, "drain", name, "--timeout", "0")
    await restart(parts, name)
    await holds(parts.is_whole)
    await asyncio.to_thread(parts.fleet.cli, "uncordon", name)


async def stream_on(load, number, is_over):
    """One long answer after the other."""
    kind = ("OpenAI, streamed", "Anthropic, streamed")[number % 2]
    model = ("alpha", "bravo")[number // 2 % 2]
    while not is_over.is_set():
        await load.ask(kind, question(model, TOKENS))


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_restart_of_everything_is_seen_by_nobody(tmp_path, measured):
    steps = [
        (hand_over, GATEWAYS[0]),
        (restart, GATEWAYS[1]),
        *((restart, name) for name in REGISTRIES),
        *((drain_and_restart, name) for name in NEURONS),
    ]
    async with (
        fleet_of_two(tmp_path, is_succeeded=True, gateway=DRAIN) as parts,
        SdkClients(parts.url, key=KEY, patience_seconds=PATIENCE_SECONDS) as clients,
    ):
        load, is_over = Load(clients, Habits(tokens=(5, 30))), asyncio.Event()
        await load.load_models()
        took = {}
        async with asyncio.TaskGroup() as streams, load.asking(STEADY):
            for number in range(STREAMS):
                streams.create_task(stream_on(load, number, is_over))
            for step, name in steps:
                began = time.monotonic()
                await step(parts, name)
                await holds(parts.is_whole)
                took[name] = time.monotonic() - began
            is_over.set()

    seen = load.seen.exchanges
    longest = max(one.longest_gap for one in seen)
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in took.items())
    measured(
        f"rolling restart: {len(seen)} requests, longest pause of a stream {longest:.1f} s; {times}"
    )
    assert [str(one) for one in load.seen.not_whole()] == []
