"""What a worker is told of the calls that its daemon makes."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.backplane.process.faults import Faults
from services.neuron.engine_api.frames import AbandonCall, Embedded
from services.neuron.engine_api.task import Prompt, Segment
from services.neuron.supervisor.link import WorkerLink

TEXT = Prompt((Segment("x"),))


@pytest.mark.parametrize("kind", ["embed", "count"])
async def test_a_cancelled_call_is_abandoned(kind: str) -> None:
    sent: list[Any] = []
    link = WorkerLink(
        sent.append,
        on_stats=lambda *_: None,
        on_cache=lambda *_: None,
        on_charged=lambda _: None,
        task_ids=itertools.count(1),
        faults=Faults(CollectorRegistry(), "neuron"),
    )
    call = link.embed("i", (TEXT,), truncate=False) if kind == "embed" else link.count("i", TEXT)
    running = asyncio.create_task(call)
    while not sent:
        await asyncio.sleep(0)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert sent[1:] == [AbandonCall(sent[0].call_id)]
    link.on_report(Embedded(sent[0].call_id))  # it was on its way: nobody minds
