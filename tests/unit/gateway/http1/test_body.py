import asyncio

from services.gateway.http1.body import RequestBody


async def test_what_has_arrived_comes_in_one_message() -> None:
    body = RequestBody()
    body.feed(b"ab")
    body.feed(b"cd")

    assert body.pending_bytes == 4
    assert await body.next_message() == {"type": "http.request", "body": b"abcd", "more_body": True}
    body.end()
    assert await body.next_message() == {"type": "http.request", "body": b"", "more_body": False}
    assert body.pending_bytes == 0


async def test_the_end_is_told_once_and_then_the_disconnect() -> None:
    body = RequestBody()
    body.end()
    body.close()

    assert (await body.next_message())["type"] == "http.request"
    assert (await body.next_message())["type"] == "http.disconnect"
    assert (await body.next_message())["type"] == "http.disconnect"


async def test_a_body_that_broke_off_is_a_disconnect() -> None:
    body = RequestBody()
    body.feed(b"half")
    body.close()

    assert (await body.next_message())["type"] == "http.disconnect"


async def test_every_waiter_learns_of_the_disconnect_though_one_was_cancelled() -> None:
    body = RequestBody()
    body.end()
    await body.next_message()
    waiters = [asyncio.create_task(body.next_message()) for _ in range(3)]
    await asyncio.sleep(0)

    waiters[0].cancel()
    await asyncio.sleep(0)
    body.close()

    async with asyncio.timeout(60):
        assert [(await w)["type"] for w in waiters[1:]] == ["http.disconnect"] * 2
