"""Client side of RPCs: streams that never outlive their reader, errors as `FleetError`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Any, TypeVar

import grpc

from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.status import from_rpc_error

T = TypeVar("T")


@contextlib.asynccontextmanager
async def streaming(
    call: Any, *, unavailable: Reason = Reason.NEURON_LOST
) -> AsyncGenerator[AsyncIterator[Any]]:
    """Reads a streaming call and always cancels it on the way out.

    Leaving an `async for` early leaves the remote side running until the channel closes.

    Args:
        call: what a stub's streaming method returned.
        unavailable: what a dead connection means for this callee.

    Raises:
        FleetError: the call failed.
    """
    try:
        yield call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, unavailable=unavailable) from error
    except asyncio.CancelledError as error:
        # gRPC cancels a call whose requests raised, and then says what it says to readers who are
        # cancelled themselves. Such a reader is told the truth, or its task would end unseen.
        task = asyncio.current_task()
        if not call.cancelled() or (task is not None and task.cancelling()):
            raise
        raise FleetError(unavailable, "The call was cancelled.") from error
    finally:
        call.cancel()


async def unary(call: Awaitable[T], *, unavailable: Reason = Reason.NEURON_LOST) -> T:
    """Awaits a unary call.

    Raises:
        FleetError: the call failed.
    """
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, unavailable=unavailable) from error
