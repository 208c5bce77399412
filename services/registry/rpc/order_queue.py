"""Orders from the control plane, which never waits, to the calls that carry them out."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

from typing_extensions import override

from services.registry.placement.orders import (
    Effects,
    Event,
    LoadOrder,
    UnloadOrder,
    UpdateOrder,
)


@dataclasses.dataclass(frozen=True, slots=True)
class CancelLoad:
    """The order to abandon a load that was ordered before."""

    order_id: int


Order = LoadOrder | UnloadOrder | UpdateOrder | CancelLoad


class OrderQueue(Effects):
    """Keeps orders in the order in which they were given.

    Args:
        record: takes note of events, at once.
    """

    def __init__(self, record: Callable[[Event], None]) -> None:
        self._record = record
        self._orders: asyncio.Queue[Order] = asyncio.Queue()

    async def next(self) -> Order:
        """Takes the oldest order out, as soon as there is one."""
        return await self._orders.get()

    @override
    def load(self, order: LoadOrder) -> None:
        self._orders.put_nowait(order)

    @override
    def cancel_load(self, order_id: int) -> None:
        self._orders.put_nowait(CancelLoad(order_id))

    @override
    def unload(self, order: UnloadOrder) -> None:
        self._orders.put_nowait(order)

    @override
    def update(self, order: UpdateOrder) -> None:
        self._orders.put_nowait(order)

    @override
    def record(self, event: Event) -> None:
        self._record(event)
