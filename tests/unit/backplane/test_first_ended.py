import asyncio

import pytest

from services.backplane.first_ended import first_ended


@pytest.fixture
def loop_end():
    """What is told when its waiter is cancelled."""
    ended = asyncio.Event()

    async def wait():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()

    return wait, ended


async def value(what):
    await asyncio.sleep(0)
    return what


async def failing():
    raise OSError("gone")


async def test_the_first_is_returned_and_the_others_have_ended(loop_end):
    forever, cancelled = loop_end

    ended = await first_ended(forever(), value(3))

    assert ended is not None
    assert 3 == ended.result()
    assert cancelled.is_set()


async def test_what_it_raised_is_raised_by_its_result(loop_end):
    forever, _ = loop_end

    ended = await first_ended(failing(), forever())

    assert ended is not None
    with pytest.raises(OSError, match="gone"):
        ended.result()


async def test_of_several_that_have_ended_the_first_named_is_returned():
    done = asyncio.get_running_loop().create_future()
    done.set_result(1)
    also_done = asyncio.get_running_loop().create_future()
    also_done.set_result(2)

    assert await first_ended(done, kept=(also_done,)) is done


async def test_what_is_kept_goes_on(loop_end):
    forever, cancelled = loop_end
    kept = asyncio.create_task(forever())

    await first_ended(value(1), kept=(kept,))

    assert not kept.done()
    kept.cancel()
    await asyncio.wait({kept})
    assert cancelled.is_set()


async def test_nothing_is_returned_when_the_time_is_over(loop_end):
    forever, cancelled = loop_end

    assert await first_ended(forever(), seconds=0.001) is None
    assert cancelled.is_set()


async def test_a_cancelled_caller_leaves_nothing_behind(loop_end):
    forever, cancelled = loop_end
    waiting = asyncio.create_task(first_ended(forever()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert cancelled.is_set()
