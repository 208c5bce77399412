"""Exceptions that nobody foresaw are logged once, counted, and end no more than they must."""

from __future__ import annotations

import asyncio
import io

import pytest
from prometheus_client import CollectorRegistry

from services.backplane import logs
from services.backplane.errors import Reason
from services.backplane.process.faults import Faults


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def faults(registry: CollectorRegistry) -> Faults:
    return Faults(registry, "neuron")


def seen(registry: CollectorRegistry, place: str) -> float:
    return registry.get_sample_value("cortex_neuron_unforeseen_errors_total", {"place": place}) or 0


def test_an_exception_is_contained_logged_once_and_counted(faults, registry):
    out = io.StringIO()
    logs.configure(logs.LogSettings(format="json"), service="neuron", stream=out)

    def crash(prompt: str) -> None:
        raise ValueError(len(prompt))

    with faults.contained("here"):
        crash("a secret prompt")

    (line,) = out.getvalue().splitlines()
    assert "ValueError" in line
    assert "test_faults.py" in line  # the traceback is there
    assert "secret" not in line  # and no local variable
    assert seen(registry, "here") == 1
    assert not faults.broken.is_set()


def test_the_one_who_asked_is_told_nothing_of_the_inside(faults):
    error = faults.note("here", ValueError("/srv/models/secret"))

    assert error.reason is Reason.INTERNAL
    assert "secret" not in error.message


def test_what_leaves_no_state_to_go_on_breaks_the_process(faults, registry):
    with faults.fatal("here"):
        raise ValueError

    assert faults.broken.is_set()
    assert seen(registry, "here") == 1


def raising_callback() -> None:
    raise ValueError


async def raising() -> None:
    raise ValueError


async def ending() -> None:
    pass


async def cancelling_itself() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("work", [raising, ending, cancelling_itself])
async def test_a_vital_task_that_ends_by_itself_breaks_the_process(faults, registry, work):
    faults.vital(work(), name="loop")

    await asyncio.wait_for(faults.broken.wait(), 60)

    assert seen(registry, "loop") == 1


async def test_a_vital_task_that_is_cancelled_breaks_nothing(faults, registry):
    task = faults.vital(asyncio.sleep(60), name="loop")
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})

    assert not faults.broken.is_set()
    assert seen(registry, "loop") == 0


async def test_what_a_callback_of_the_loop_raises_is_counted(faults, registry):
    async with faults.watching_loop():
        asyncio.get_running_loop().call_soon(raising_callback)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert seen(registry, "event-loop") == 1
