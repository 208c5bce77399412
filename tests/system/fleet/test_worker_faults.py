"""kill -9, kill -STOP and errors of the library on a worker with 16 streams: llama.cpp.

The same on ExLlamaV2, in emulation or on a GPU: tests/engines/exllamav2/test_worker_faults.py.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import AsyncIterator, Sequence

import pytest

from services.neuron.settings import WorkerLimits
from tests.doubles import random_llama
from tests.doubles.neuron_host import running_neuron
from tests.doubles.nvml import Driver
from tests.system.fleet.worker_faults import FAULTS, STREAMS, Side, Stage

pytestmark = pytest.mark.slow
LIMITS = WorkerLimits(first_pause_seconds=0.05, start_seconds=60.0, stall_seconds=3.0)
TOKENS = 240
CLEAR = 0.008  # rounding moved no log probability of this model by more than 0.004


def injecting(*, engine: str, fd: int) -> Sequence[str]:
    """A worker whose library fails on demand."""
    module = "tests.doubles.neuron_injecting_worker"
    return [sys.executable, "-m", module, "--engine", engine, "--fd", str(fd)]


@pytest.fixture
async def stage(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    async with running_neuron(tmp_path, worker_command=injecting, workers=LIMITS) as host:
        for seed, name in enumerate(("victim", "bystander")):
            random_llama.build(tmp_path / f"{name}.gguf", seed=seed)
            await host.load(name, device_ids=[f"GPU-{seed}"], max_sequences=16)
        victim, bystander = Side(host.stub, "victim"), Side(host.stub, "bystander")
        yield Stage(victim=victim, bystander=bystander, tokens=TOKENS, clear_margin=CLEAR)


async def test_a_struck_worker_costs_its_streams_a_pause_and_the_other_nothing(stage, measured):
    await stage.rehearse()

    outcomes = [await stage.strike(fault) for fault in FAULTS]

    for outcome in outcomes:
        measured(f"llama.cpp, {outcome}")
    assert [one.equal for one in outcomes] == [STREAMS] * len(FAULTS), outcomes
    assert all(one.is_new_process and one.resumed for one in outcomes)
