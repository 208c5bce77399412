"""One fleet on a GPU in software and on the CPU, with room for one model each: nobody is cut."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import random
from collections.abc import Callable

import psutil
import pytest

from tests.doubles import scripted, vulkan_library
from tests.doubles.scripted import Script
from tests.doubles.vulkan_library import DEVICE_ID
from tests.system.fleet.clients import Clients
from tests.system.fleet.conftest import BRISK
from tests.system.fleet.models import WORDS
from tests.system.fleet.processes import Fleet

# A copy takes 260 MB, nearly all of it its cache: three do not fit into both budgets together.
CONTEXT, BUDGET = 500_000, 335_000_000
SETTINGS = f"""
memory_budget_bytes = {BUDGET}
max_context_tokens = {CONTEXT}
[neuron.workers]
start_seconds = 60
stall_seconds = 300
load_stall_seconds = 300
[neuron.llamacpp]
library = "{vulkan_library.FOLDER}"
"""
# Weights, caches and buffers are the only mappings of a worker that are as large.
LARGE_BYTES = 16 << 20
CLIENTS, ROUNDS = 12, 1


@pytest.fixture(autouse=True)
def vulkan(monkeypatch: pytest.MonkeyPatch) -> None:
    if (why := vulkan_library.missing()) is not None:
        pytest.skip(why)
    for name, value in vulkan_library.environment().items():
        monkeypatch.setenv(name, value)


def taken(pid: int) -> int:
    """Bytes of a process's large mappings that are in memory; 0 once it has ended."""
    with contextlib.suppress(psutil.Error):
        maps = psutil.Process(pid).memory_maps(grouped=False)
        return sum(m.rss for m in maps if m.path == "[anon]" and m.rss >= LARGE_BYTES)
    return 0


async def watched(fleet: Fleet, ended: asyncio.Event) -> list[tuple[int, int]]:
    """What models have taken, again and again: of the GPU alone, and of both devices together.

    A worker that has both may have any part of its model on either.
    """
    seen: list[tuple[int, int]] = []
    devices: dict[int, set[str]] = {}
    while not ended.is_set():
        state = await asyncio.to_thread(fleet.state)
        for neuron in state.neurons if state else ():
            # those of before count as long as they live
            devices |= {w.pid: set(w.device_ids) for w in neuron.report.workers if w.pid}
        held = {pid: await asyncio.to_thread(taken, pid) for pid in devices}
        of_gpu = sum(count for pid, count in held.items() if devices[pid] == {DEVICE_ID})
        seen.append((of_gpu, sum(held.values())))
        await asyncio.sleep(0.1)
    return seen


@pytest.mark.slow
async def test_twelve_clients_swap_three_models_on_a_gpu_and_the_cpu(
    fleet: Fleet, measured: Callable[[str], None], tmp_path: pathlib.Path
):
    """Room for one model on each; what they take is not said, but measured."""
    entries: list[str] = []
    for name, words in WORDS.items():
        script = Script(words=words, is_endless=True, name=name, context=CONTEXT)
        path = scripted.build(tmp_path / f"{name}.gguf", script)
        entries.append(f'[[models]]\nid = "{name}"\nsource = "path:{path}"\n')
    fleet.models = "\n".join(entries)
    fleet.add_registry(settings=BRISK)
    fleet.add_neuron("both", settings=SETTINGS)
    fleet.add_gateway()
    fleet.wait("both")
    chance, ended, places = random.Random(4), asyncio.Event(), set[tuple[str, ...]]()

    async def one_client(clients: Clients):
        order = list(WORDS) * ROUNDS
        chance.shuffle(order)
        return [await clients.stream(model, chance.choice((1, 20, 60))) for model in order]

    async with Clients(fleet.url) as clients:
        watching = asyncio.create_task(watched(fleet, ended))
        many = await asyncio.gather(*(one_client(clients) for _ in range(CLIENTS)))
        for name in WORDS:
            for instance in fleet.instances(name):
                places.add(tuple(sorted(m.device_id for m in instance.memory if m.bytes)))
        ended.set()
        seen = await watching

    answers = [answer for answers in many for answer in answers]
    assert len(answers) == CLIENTS * len(WORDS) * ROUNDS
    assert [str(answer) for answer in answers if not answer.is_whole] == []
    of_gpu, of_both = (max(each) for each in zip(*seen, strict=True))
    assert CONTEXT * 512 <= of_gpu <= BUDGET
    assert of_both <= 2 * BUDGET
    swaps = list(fleet["registry"].lines("unload.ordered"))
    assert {swap["why"] for swap in swaps} == {"evicted"}
    assert any(DEVICE_ID in place for place in places), places
    measured(
        f"{len(answers)} requests on {sorted(places)}: {len(swaps)} swaps,"
        f" at most {of_gpu >> 20} of {BUDGET >> 20} MiB of the GPU and {of_both >> 20} of"
        f" {BUDGET >> 19} MiB in all, in {len(seen)} looks"
    )
