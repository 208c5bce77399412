"""kill -9, kill -STOP, an exception and a device error on a worker with 16 streams: ExLlamaV2.

Real worker processes under the real daemon; the device is emulated where there is none.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.neuron import wire
from services.neuron.settings import WorkerLimits
from tests.doubles.neuron_host import running_neuron
from tests.doubles.nvml import Driver
from tests.engines.exllamav2 import folders
from tests.system.fleet.test_worker_faults import injecting
from tests.system.fleet.worker_faults import FAULTS, STREAMS, Side, Stage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
LIMITS = WorkerLimits(first_pause_seconds=0.05, start_seconds=120.0, stall_seconds=4.0)
TOKENS = 120
CLEAR = 0.06  # rounding moved no log probability of this model by more than 0.007, noise by 0.02


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    root = Path(__file__).parent
    paths = [root / "emulated_noise", root.parents[2], root.parents[2] / "protos"]
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, paths)))
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    monkeypatch.setattr(wire, "importable_engines", lambda **_: (["exllamav2"], list[str]()))
    async with running_neuron(tmp_path, worker_command=injecting, workers=LIMITS) as host:
        for seed, name in enumerate(("victim", "bystander")):
            folders.build_random(tmp_path / name, seed=seed, said=8)
            await host.load(
                name, device_ids=[f"GPU-{seed}"], max_context_tokens=1024, max_sequences=16
            )
        victim, bystander = Side(host.stub, "victim"), Side(host.stub, "bystander")
        yield Stage(victim=victim, bystander=bystander, tokens=TOKENS, clear_margin=CLEAR)


async def test_a_struck_worker_costs_its_streams_a_pause_and_the_other_nothing(
    stage: Stage, measured
) -> None:
    await stage.rehearse()

    outcomes = {fault: await stage.strike(fault) for fault in FAULTS}

    for outcome in outcomes.values():
        measured(f"ExLlamaV2, {outcome}")
    assert [one.equal for one in outcomes.values()] == [STREAMS] * len(FAULTS), outcomes
    # An exception costs a generator, everything else the process.
    assert not outcomes.pop("an exception").is_new_process
    assert all(one.is_new_process and one.resumed for one in outcomes.values())
