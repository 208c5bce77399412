"""Caches that outlive their model, in real workers."""

from __future__ import annotations

import pathlib

import pytest

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.neuron.settings import KvStoreSettings
from tests.doubles import random_llama
from tests.doubles.neuron_host import NeuronHost, running_neuron

PROMPT = [3 + (i * 37) % 256 for i in range(500)]


async def ask(host: NeuronHost, principal: str = "") -> tuple[int, list[int]]:
    """Cached tokens and greedy output."""
    request = generation.GenerateRequest(
        model="m",
        token_ids=generation.TokenIds(ids=PROMPT),
        sampling=generation.Sampling(temperature=0),
        stop=generation.StopRules(max_tokens=8, ignore_eos=True),
        principal=principal,
    )
    events = [event async for event in host.stub.Generate(request)]
    output = [t for event in events for t in event.text.token_ids]
    return events[-1].finished.usage.cached_prompt_tokens, output


async def unload(host: NeuronHost) -> None:
    async for _ in host.stub.Unload(neuron.UnloadRequest(model="m")):
        pass


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "memory").mkdir()
    random_llama.build(tmp_path / "m.gguf")
    return tmp_path


def kept(below: pathlib.Path, *, folder: str = "", key_file: str = "") -> KvStoreSettings:
    return KvStoreSettings(memory_folder=str(below / "memory"), folder=folder, key_file=key_file)


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    return list(folder.rglob("*.kv"))


def left_half_written(folder: pathlib.Path) -> list[pathlib.Path]:
    return list(folder.rglob("*.part-*"))


async def test_a_model_that_comes_back_reads_no_prompt_twice(folder: pathlib.Path) -> None:
    async with running_neuron(folder, kv_store=kept(folder)) as host:
        await host.load("m")
        _, expected = await ask(host)
        await unload(host)
        await host.load("m")

        assert await ask(host) == (len(PROMPT) - 1, expected)


async def test_with_a_folder_a_restart_of_the_neuron_keeps_it_too(folder: pathlib.Path) -> None:
    settings = kept(folder, folder=str(folder / "disk"))
    async with running_neuron(folder, kv_store=settings) as host:
        await host.load("m")
        _, expected = await ask(host)

    assert not files(folder / "memory")
    assert files(folder / "disk")
    async with running_neuron(folder, kv_store=settings) as host:
        await host.load("m")
        assert await ask(host) == (len(PROMPT) - 1, expected)


async def test_a_caller_with_a_key_leaves_no_file(folder: pathlib.Path) -> None:
    async with running_neuron(folder, kv_store=kept(folder)) as host:
        await host.load("m")
        await ask(host, "alice")
        await unload(host)

        assert not files(folder)


async def test_encrypted_a_caller_with_a_key_reads_no_prompt_twice_either(
    folder: pathlib.Path,
) -> None:
    settings = kept(folder, folder=str(folder / "disk"), key_file=str(folder / "state" / "kv.key"))
    async with running_neuron(folder, kv_store=settings) as host:
        await host.load("m")
        _, expected = await ask(host, "alice")
    async with running_neuron(folder, kv_store=settings) as host:
        await host.load("m")
        assert await ask(host, "bob") == (0, expected)
        assert await ask(host, "alice") == (len(PROMPT) - 1, expected)
        await unload(host)
    (folder / "state" / "kv.key").unlink()  # the next start makes another
    async with running_neuron(folder, kv_store=settings) as host:
        await host.load("m")
        assert await ask(host, "alice") == (0, expected)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
async def test_two_hundred_swaps_keep_the_bounds_of_the_store(folder: pathlib.Path) -> None:
    """Two models in turn, a new conversation before each swap: both tiers fill, and forget."""
    random_llama.build(folder / "n.gguf")
    memory_bytes, folder_bytes = 1 << 20, 2 << 20
    disk = folder / "disk"
    settings = KvStoreSettings(
        memory_folder=str(folder / "memory"),
        memory_bytes=memory_bytes,
        folder=str(disk),
        folder_bytes=folder_bytes,
    )
    most = {"memory": 0, "disk": 0}
    async with running_neuron(folder, kv_store=settings) as host:
        for swap in range(200):
            name = "mn"[swap % 2]
            await host.load(name)
            request = generation.GenerateRequest(
                model=name,
                token_ids=generation.TokenIds(ids=[3 + (i * 37 + swap) % 256 for i in range(300)]),
                stop=generation.StopRules(max_tokens=2, ignore_eos=True),
            )
            async for _ in host.stub.Generate(request):
                pass
            following = neuron.UnloadRequest(model=name)
            following.following.model = "nm"[swap % 2]
            async for _ in host.stub.Unload(following):
                pass
            for tier, bound in (("memory", memory_bytes), ("disk", folder_bytes)):
                held = sum(one.stat().st_size for one in files(folder / tier))
                most[tier] = max(most[tier], held)
                assert held <= bound, f"swap {swap}: {tier}"
            assert not left_half_written(folder)

    assert most["memory"] > memory_bytes / 2
    assert most["disk"] > folder_bytes / 2
