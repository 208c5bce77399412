import asyncio

from services.gateway.http1.hypercorn.app_tasks import AppMessages

PIECE = {"type": "http.request", "body": b"x", "more_body": True}
END = {"type": "http.disconnect"}


async def test_a_sender_waits_until_the_app_goes_on() -> None:
    messages = AppMessages(2)
    await messages.put(PIECE)
    await messages.put(PIECE)
    third = asyncio.create_task(messages.put(PIECE))
    await asyncio.sleep(0)

    assert not third.done()
    assert await messages.get() is PIECE
    await third


async def test_an_end_waits_for_nothing() -> None:
    messages = AppMessages(1)
    await messages.put(PIECE)

    await messages.put(END)

    assert [await messages.get(), await messages.get()] == [PIECE, END]


async def test_what_comes_behind_the_end_of_the_app_is_dropped() -> None:
    messages = AppMessages(1)
    await messages.put(PIECE)
    waiting = [asyncio.create_task(messages.put(PIECE)) for _ in range(2)]
    await asyncio.sleep(0)

    messages.close()

    await asyncio.gather(*waiting)
    await messages.put(PIECE)


async def test_a_reader_gets_what_comes_while_it_waits() -> None:
    messages = AppMessages(1)
    reading = asyncio.create_task(messages.get())
    await asyncio.sleep(0)

    await messages.put(PIECE)

    assert await reading is PIECE
