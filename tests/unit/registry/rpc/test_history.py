import asyncio

import pytest

from services.backplane.errors import FleetError, Reason
from services.registry.placement.orders import NeuronLost, WaitEnded
from services.registry.rpc.history import EventHistory


async def told(history, after=0):
    return [event async for event in history.watch(after, follow=False)]


async def test_a_thousand_events_are_remembered_and_their_numbers_go_on():
    history = EventHistory(clock=lambda: 5.0)
    for number in range(1200):
        history.note("model.pinned", model=f"m{number}")

    events = await told(history)

    assert (201, 1200) == (events[0].number, events[-1].number)
    assert 5 == events[0].at.seconds
    assert [1200] == [event.number for event in await told(history, after=1199)]


async def test_who_stops_waiting_is_no_event_and_a_silent_neuron_is_one():
    history = EventHistory()
    history.record(WaitEnded("m", 1.0, "placed"))
    history.record(NeuronLost("beast"))

    (event,) = await told(history)

    assert ("neuron.lost", "beast") == (event.kind, event.neuron)


async def test_a_reader_is_told_when_the_term_ends():
    history = EventHistory()
    history.note("neuron.attached", neuron="a")
    reader = history.watch(0, follow=True)
    first = await anext(reader)
    waiting = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)

    history.close()
    with pytest.raises(FleetError) as ended:
        await waiting

    assert "neuron.attached" == first.kind

    assert Reason.NOT_LEADER is ended.value.reason
