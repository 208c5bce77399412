"""Energy of requests, by a real worker's time, on a host whose CPU counters can be read."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from cortex.v1 import generation_pb2 as generation
from services.neuron.devices import power
from tests.doubles.neuron_host import PATIENCE_SECONDS, NeuronHost, chat, running_neuron

FAMILY = "cortex_neuron_request_energy_joules"


async def generated(host: NeuronHost, name: str) -> generation.GenerationFinished:
    request = chat("Go on.", model=name, stop=generation.StopRules(max_tokens=200))
    events = [event async for event in host.stub.Generate(request)]
    assert events[-1].HasField("finished")
    return events[-1].finished


def joules(host: NeuronHost) -> dict[str, float]:
    """What the page tells of requests, by model."""
    return {
        sample.labels["model"]: sample.value
        for family in host.served.metrics.collect()
        for sample in family.samples
        if family.name == FAMILY
    }


async def test_requests_use_what_the_cpu_used_while_it_worked_for_them(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "rapl" / "intel-rapl:0"
    package.mkdir(parents=True)
    counter, used = package / "energy_uj", 0
    (package / "name").write_text("package-0")
    (package / "max_energy_range_uj").write_text("262143328850")
    counter.write_text("0")
    monkeypatch.setattr(power, "RAPL_FOLDER", package.parent)
    async with running_neuron(tmp_path) as host:
        for name in ("asked", "idle"):
            host.script(name, words=("la", " li", " lu"), is_endless=True)
            await host.load(name)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not joules(host):
                await generated(host, "asked")
                used += 20_000_000
                counter.write_text(str(used))
        (cpu,) = (await host.status()).report.devices
        told = joules(host)
        finished = await generated(host, "asked")

    assert finished.timings.joules > 0
    assert told.keys() == {"asked"}
    assert 0 < told["asked"] <= used / 1e6
    assert cpu.HasField("energy_joules")
    assert cpu.energy_joules <= used / 1e6


async def test_a_host_that_does_not_tell_has_no_figures(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(power, "RAPL_FOLDER", tmp_path / "nothing")
    async with running_neuron(tmp_path) as host:
        host.script("asked", words=["Hello"])
        await host.load("asked")
        assert not (await generated(host, "asked")).timings.HasField("joules")
        (cpu,) = (await host.status()).report.devices

        assert joules(host) == {}
        assert not cpu.HasField("energy_joules")
