"""`cortex pull`, `cortex models --local`, `cortex rm`: a real registry, real neurons, a hub."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import sys
from collections.abc import AsyncGenerator

import pytest

from cortex.v1 import storage_service_pb2 as pb
from tests.doubles import scripted
from tests.doubles.hub_models import HUGE, REPO
from tests.doubles.hub_server import Hub, serving_hub
from tests.doubles.neuron_host import NeuronHost, running_neuron
from tests.doubles.registry_neuron import eventually
from tests.doubles.registry_stand_ins import Fleet, document, running_fleet
from tests.doubles.scripted import Script

_COMMAND = """
import signal
from services.cli.__main__ import main

signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


class Place:
    """A fleet of two neurons, and what both ask of the hub."""

    def __init__(self, fleet: Fleet, hub: Hub, neurons: dict[str, NeuronHost]) -> None:
        self.fleet, self.hub, self.neurons = fleet, hub, neurons

    async def started(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _COMMAND, *words, "--registry", self.fleet.address),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "200"},
        )

    async def cli(self, *words: str, says: str = "") -> tuple[int, str]:
        process = await self.started(*words)
        output, _ = await process.communicate(says.encode())
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def disks(self) -> list[tuple[str, str, str]]:
        code, output = await self.cli("models", "--local", "--json")
        assert code == 0, output
        rows = [json.loads(line) for line in output.splitlines()]
        return [(row["model"], row["neuron"], row["use"]) for row in rows]


@pytest.fixture
async def place(tmp_path: pathlib.Path) -> AsyncGenerator[Place]:
    with serving_hub() as hub:
        async with (
            running_fleet(document(tmp_path, lease_seconds=10.0)) as fleet,
            contextlib.AsyncExitStack() as stack,
        ):
            neurons: dict[str, NeuronHost] = {}
            for name in ("one", "two"):
                (tmp_path / name).mkdir()
                neurons[name] = await stack.enter_async_context(
                    running_neuron(
                        tmp_path / name,
                        name=name,
                        hf_endpoint=hub.endpoint,
                        registry=(fleet.address,),
                        advertise="127.0.0.1:0",
                    )
                )
            await fleet.until(lambda names: names == {"one", "two"}, 30.0)
            yield Place(fleet, hub, neurons)


@pytest.fixture
def data(tmp_path: pathlib.Path) -> bytes:
    return scripted.build(tmp_path / "made.gguf", Script(name="bravo")).read_bytes()


async def test_pulled_shown_used_and_removed_again(place, data, tmp_path):
    place.hub.push(REPO, {"bravo-Q4_K_M.gguf": data, "bravo-Q8_0.gguf": data})

    several = await place.cli("pull", f"hf:{REPO}")
    assert several[0] == 1
    assert "bravo-Q4_K_M.gguf, bravo-Q8_0.gguf" in several[1]

    code, output = await place.cli("pull", f"hf:{REPO}:q8_0")
    assert code == 0, output
    assert "one: has bravo-Q8_0" in output
    assert "two: has bravo-Q8_0" in output
    # for both neurons together
    assert len(place.hub.downloads()) == 1
    both = [("bravo-Q8_0", "one", ""), ("bravo-Q8_0", "two", "")]
    await until(place, both)

    code, output = await place.cli("load", "bravo-Q8_0", "--neuron", "two")
    assert code == 0, output
    await until(place, [both[0], ("bravo-Q8_0", "two", "ready")])
    table = (await place.cli("models", "--local"))[1]
    assert "F16" in table
    assert f"hf:{REPO}@main" in table

    code, output = await place.cli("rm", "bravo-Q8_0", says="n\n")
    assert code == 1
    assert "Remove bravo-Q8_0?" in output
    code, output = await place.cli("rm", "bravo-Q8_0", says="y\n")
    assert code == 1
    assert "one: removed" in output
    assert "two: bravo-Q8_0 is loaded from them" in output
    code, output = await place.cli("rm", "bravo-Q8_0", "--yes", "--force")
    assert code == 0, output
    assert "two: removed" in output
    assert not [*tmp_path.glob("*/hf/**/*.gguf")]
    await until(place, [])
    code, output = await place.cli("rm", "bravo-Q8_0", "--yes")
    assert code == 1
    assert "lies on no disk" in output


async def test_a_pull_mends_what_was_damaged_on_a_disk(place, data, tmp_path):
    place.hub.push(REPO, {"bravo.gguf": data})
    code, output = await place.cli("pull", REPO, "--neuron", "one")
    assert code == 0, output
    assert "cortex chat --model bravo" in output
    (file,) = tmp_path.glob("one/hf/**/bravo.gguf")
    file.write_bytes(bytes(len(data)))
    await until(place, [])
    told = (await place.cli("models", "--local"))[1]
    assert "one: not offered: bravo.gguf is no GGUF file" in " ".join(told.split())

    code, output = await place.cli("pull", REPO, "--neuron", "one")

    assert code == 0, output
    assert file.read_bytes() == data
    await until(place, [("bravo", "one", "")])


async def test_quantisations_are_pulled_verified_and_loaded_once_by_any_name(place, data, tmp_path):
    place.hub.push(REPO, {"bravo-Q4_K_M.gguf": data, "bravo-Q8_0.gguf": data + bytes(1)})
    for quant in ("Q4_K_M", "Q8_0"):
        code, output = await place.cli("pull", f"{REPO}:{quant}", "--neuron", "one")
        assert code == 0, output
    (file,) = tmp_path.glob("one/hf/**/bravo-Q8_0.gguf")
    file.write_bytes(bytes(len(data)) + bytes(1))
    code, output = await place.cli("pull", f"{REPO}:Q8_0", "--neuron", "one", "--verify")
    assert code == 0, output
    assert file.read_bytes() == data + bytes(1)
    both = [("bravo:Q4_K_M", "one", ""), ("bravo:Q8_0", "one", "")]
    await until(place, both)

    for name in ("bravo", "bravo:Q8_0"):
        code, output = await place.cli("load", name)
        assert code == 0, output

    await until(place, [both[0], ("bravo:Q8_0", "one", "ready")])
    status = await place.neurons["one"].status()
    assert [one.spec.model for one in status.report.instances] == ["bravo:Q8_0"]
    table = (await place.cli("models"))[1]
    assert table.count("bravo:Q8_0") == 1


async def test_what_somebody_put_there_is_never_removed_and_not_unloaded_for_it(place):
    place.neurons["one"].script("mine")
    await until(place, [("mine", "one", "")])
    await place.cli("load", "mine")

    code, output = await place.cli("rm", "mine", "--yes", "--force")

    assert code == 1
    assert "was not fetched by this neuron" in output
    await until(place, [("mine", "one", "ready")])


async def half_pulled(place):
    """A pull of which nine megabytes have come, and to which no more comes."""
    place.hub.push(REPO, {"huge.gguf": HUGE})
    place.hub.cut_after, place.hub.goes_silent = [14_000_000], True
    process = await place.started("pull", f"hf:{REPO}:huge.gguf", "--neuron", "one", "--json")
    assert process.stdout is not None
    while line := await process.stdout.readline():
        if json.loads(line).get("progress", {}).get("bytes_done", 0) >= 9_000_000:
            break
    return process


async def test_ctrl_c_ends_a_pull_and_the_next_one_goes_on_there(place):
    process = await half_pulled(place)
    process.send_signal(signal.SIGINT)
    output, _ = await process.communicate()
    assert process.returncode == 130
    assert b"given up" in output
    place.hub.is_silent = place.hub.goes_silent = False
    place.hub.released.set()
    before = len(place.hub.downloads())
    (told,) = await left_over(place)
    assert told["origin"] == f"hf:{REPO}@main"
    assert int(told["bytes"]) >= 9_000_000
    words = " ".join((await place.cli("models", "--local"))[1].split())
    assert f"one: not finished: hf:{REPO}@main" in words

    code, output = await place.cli("pull", f"hf:{REPO}:huge.gguf", "--neuron", "one")

    assert code == 1  # it is no model, which is told only once it is here
    assert "huge.gguf is no GGUF file" in output
    assert int(place.hub.downloads()[before].removeprefix("bytes=").rstrip("-")) >= 9_000_000


async def test_what_an_ended_pull_has_left_is_removed(place, tmp_path):
    process = await half_pulled(place)
    code, output = await place.cli("rm", f"hf:{REPO}", "--yes")
    assert code == 1
    assert f"'hf:{REPO}@main' lies on no disk" in output
    process.send_signal(signal.SIGINT)
    await process.communicate()
    await left_over(place)

    code, output = await place.cli("rm", f"hf:{REPO}", says="y\n")

    assert code == 0, output
    assert "not finished" in output
    assert "one: removed" in output
    assert not [*tmp_path.glob("one/hf/**/*.part")]
    code, output = await place.cli("rm", "hf:nonsense", "--yes")
    assert code == 2


async def test_a_model_that_no_neuron_could_run_is_pulled_only_where_one_is_named(place, data):
    place.hub.push(REPO, {"bravo.gguf": data})
    request = pb.PullModelRequest(source="hf:acme/nowhere@main")
    with pytest.raises(Exception, match="The hub has no acme/nowhere"):
        async for _ in place.fleet.storage.PullModel(request):
            pass
    request = pb.PullModelRequest(source=f"hf:{REPO}@main", neurons=["two", "three"])
    with pytest.raises(Exception, match="No neuron is called 'three'"):
        async for _ in place.fleet.storage.PullModel(request):
            pass
    code, output = await place.cli("pull", "nonsense")
    assert code == 2
    assert "is no source" in output


async def left_over(place: Place) -> list[dict[str, str]]:
    """Waits until something is; each look is a process."""
    async with asyncio.timeout(30):
        while True:
            output = (await place.cli("models", "--local", "--json"))[1]
            found = [json.loads(line).get("unfinished") for line in output.splitlines()]
            if any(found):
                return [one for one in found if one]
            await asyncio.sleep(0.2)


async def until(place: Place, wanted: list[tuple[str, str, str]]) -> None:
    """Waits until the disks are so; each look is a process."""

    async def are_so() -> bool:
        return await place.disks() == wanted

    await eventually(are_so, 90.0)
