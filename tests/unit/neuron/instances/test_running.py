import asyncio

import pytest

from services.neuron.instances.running import Suspicion

LONG = 600.0


def suspected() -> Suspicion:
    suspicion = Suspicion()
    for _ in range(2):
        assert suspicion.note_death(10, is_alone=False)
    assert suspicion.is_strong
    suspicion.begin_turn()
    return suspicion


@pytest.mark.parametrize("end", ["past", "over", "dead"])
async def test_a_turn_ends_where_the_request_is_past_the_place_or_over_or_its_worker_dead(end: str):
    suspicion = suspected()
    turn = asyncio.create_task(suspicion.turn(LONG))
    suspicion.note_made(20)
    await asyncio.sleep(0)
    assert not turn.done()

    match end:
        case "past":
            suspicion.note_made(42)
        case "over":
            suspicion.note_end()
        case _:
            assert not suspicion.note_death(20, is_alone=True)

    await turn


async def test_who_is_still_alive_at_the_end_of_a_turn_is_suspected_no_more():
    suspicion = suspected()

    await suspicion.turn(0.0)

    assert not suspicion.is_strong
    assert suspicion.note_death(10, is_alone=False)
