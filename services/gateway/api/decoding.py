"""Decodes bodies, and words answers, without holding up other requests.

Decoding one item of a body costs microseconds, and a body may hold millions of them. So the items
are bounded, and a large body is decoded in a thread, where the interpreter changes to the event
loop every few milliseconds; one of megabytes in a thread of its own, which rests between its steps.
So is an answer with many log probabilities worded.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.written_text import chat_characters, written_characters
from services.gateway.dialects.common.item_count import count_items
from services.gateway.dialects.common.slices import rest, sliced
from services.gateway.dialects.dialect import Collected, DecodedRequest, Head, TooMuchHereError

T = TypeVar("T")

# What is decoded at once: a hop to a thread costs as much as these bytes.
_AT_ONCE_BYTES: Final = 128 << 10
# Of a smaller body it is cheaper to let the neuron see whether its prompt is too long.
_LARGE_BYTES: Final = 1 << 20
# What is worded at once, at about 3 µs each.
_AT_ONCE_LOGPROBS: Final = 1_000
# An item and its comma.
_LEAST_ITEM_BYTES: Final = 2


def is_short(choices: Sequence[Collected]) -> bool:
    """True if an answer is encoded quickly enough for the event loop: few log probabilities."""
    told = [one.logprobs for one in choices if one.logprobs]
    return not told or (
        sum([len(each) * (1 + len(each[0].alternatives)) for each in told]) <= _AT_ONCE_LOGPROBS
    )


class Decoding:
    """Runs the decoders of bodies.

    Args:
        most_items: `gateway.max_body_items`; a body with more is refused before it is decoded.
    """

    def __init__(self, *, most_items: int) -> None:
        self._most_items = most_items
        self._at_once = min(_AT_ONCE_BYTES, most_items * _LEAST_ITEM_BYTES)
        # two, so that one body does not wait for another
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="decoding")
        # one, so that the loop waits for one at most that holds the interpreter's lock long
        self._large = ThreadPoolExecutor(1, thread_name_prefix="decoding-large")

    async def run(self, read: Callable[[bytes, Head], T], body: bytes, head: Head) -> T:
        """Decodes a body with `read`, in a thread where it is large or leads to much else.

        Cancelling it leaves a body that waits for a thread undecoded.

        Raises:
            FleetError: BODY_TOO_LARGE: it has more items than it may; or what `read` raises.
        """
        decoded = self.at_once(read, body, head)
        return await self.in_thread(read, body, head) if decoded is None else decoded

    def at_once(self, read: Callable[[bytes, Head], T], body: bytes, head: Head) -> T | None:
        """Decodes a small body; None where it has to be decoded in a thread.

        Raises:
            FleetError: what `read` raises.
        """
        if len(body) <= self._at_once:
            try:
                return read(body, head)
            except TooMuchHereError:  # a conversation that it goes on from
                pass
        return None

    async def in_thread(self, read: Callable[[bytes, Head], T], body: bytes, head: Head) -> T:
        """Decodes a body with `read` in a thread; as `run` says."""
        loop = asyncio.get_running_loop()
        threads = self._large if len(body) > _LARGE_BYTES else self._threads
        return await loop.run_in_executor(threads, self._run, read, body, head)

    async def generation(
        self, read: Callable[[bytes, Head], DecodedRequest], body: bytes, head: Head
    ) -> DecodedRequest:
        """Decodes the body of a generation in a thread, and measures its prompts where it is large.

        Raises:
            FleetError: as `run`.
        """
        if len(body) > _LARGE_BYTES:
            read = functools.partial(_measured, read)
        return await self.in_thread(read, body, head)

    async def measured(self, chat: conversation.Chat) -> int:
        """The characters that a large prompt has at least, counted in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._large, chat_characters, chat)

    async def word(self, write: Callable[[], T]) -> T:
        """Encodes a long answer by `write` in a thread; one that `is_short` needs none."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, write)

    def close(self) -> None:
        """Ends the threads; what they are decoding is decoded to its end."""
        for threads in (self._threads, self._large):
            threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, read: Callable[[bytes, Head], T], body: bytes, head: Head) -> T:
        if count_items(body, self._most_items) >= self._most_items:
            raise FleetError(
                Reason.BODY_TOO_LARGE,
                f"The body has more than {self._most_items} items, which is the most that"
                " gateway.max_body_items allows.",
            )
        with sliced():
            return read(body, head)


def _measured(
    read: Callable[[bytes, Head], DecodedRequest], body: bytes, head: Head
) -> DecodedRequest:
    decoded = read(body, head)
    for request in decoded.requests:
        decoded.characters = max(decoded.characters, written_characters(request))
        rest()
    return decoded
