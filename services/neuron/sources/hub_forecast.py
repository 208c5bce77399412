"""What a model of a hub will weigh, before it is fetched: from the hub's own list of its files.

Look-ups are few at a time, each one limited, and remembered: whoever plans asks again and again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
import time
from collections.abc import Awaitable, Callable
from typing import Final

from services.backplane.errors import FleetError, Reason
from services.backplane.timeouts import timeout
from services.neuron.sources.hub_files import HubListing, HubModel
from services.neuron.weights import inspect
from services.neuron.weights.inspect import Weights

_AT_A_TIME: Final = 2
_LIMIT_SECONDS: Final = 20.0
_REMEMBERED_SECONDS: Final = 600.0
_FAILURE_REMEMBERED_SECONDS: Final = 30.0
_MOST_REMEMBERED: Final = 128


@dataclasses.dataclass(frozen=True, slots=True)
class HubDescription:
    """What a hub says of a repository.

    Attributes:
        listing: its files.
        config: the text of its `config.json`; empty where it has none.
    """

    listing: HubListing
    config: str = ""


@dataclasses.dataclass(slots=True)
class _LookUp:
    task: asyncio.Task[HubDescription]
    begun_at: float

    @property
    def is_fresh(self) -> bool:
        if not self.task.done():
            return True
        has_failed = self.task.cancelled() or self.task.exception() is not None
        seconds = _FAILURE_REMEMBERED_SECONDS if has_failed else _REMEMBERED_SECONDS
        return time.monotonic() - self.begun_at < seconds


class HubForecast:
    """Sizes of models before they are downloaded."""

    def __init__(self, describe: Callable[[HubModel], Awaitable[HubDescription]]) -> None:
        """Starts without any look-up.

        Args:
            describe: asks the hub; raises FleetError.
        """
        self._describe = describe
        self._look_ups: dict[tuple[str, str], _LookUp] = {}
        self._turns = asyncio.Semaphore(_AT_A_TIME)

    async def weights(self, wanted: HubModel, quant: str) -> Weights:
        """The weights as they will be. Of a GGUF file only the size is known before.

        Raises:
            FleetError: the hub refused, or did not answer in time (SOURCE_UNAVAILABLE).
        """
        key = (wanted.repository, wanted.revision)
        found = self._look_ups.pop(key, None)
        if found is None or not found.is_fresh:
            task = asyncio.create_task(self._ask(wanted), name=f"hub-forecast-{wanted.name}")
            # Whoever asked may have left by the time it fails.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            found = _LookUp(task, time.monotonic())
        self._look_ups[key] = found  # the newest come last
        for oldest in list(self._look_ups)[:-_MOST_REMEMBERED]:
            del self._look_ups[oldest]
        # One caller's leaving must not end it for the others; it has a limit of its own.
        described = await asyncio.shield(found.task)
        return _weights(wanted, described, quant)

    async def _ask(self, wanted: HubModel) -> HubDescription:
        try:
            async with self._turns, timeout(_LIMIT_SECONDS):
                return await self._describe(wanted)
        except TimeoutError as late:
            raise FleetError(
                Reason.SOURCE_UNAVAILABLE,
                f"The hub did not describe {wanted.repository} within {_LIMIT_SECONDS:.0f} s.",
                field="spec.source",
            ) from late


def _weights(wanted: HubModel, described: HubDescription, quant: str) -> Weights:
    chosen = wanted.choose(described.listing.files, quant)
    path = pathlib.Path(wanted.name)
    tensors = [file.size for file in chosen if file.path.endswith(".safetensors")]
    if any(file.path.endswith(".gguf") for file in chosen):
        return Weights(path=path, format="gguf", bytes=sum(file.size for file in chosen))
    return inspect.of_config(path, described.config or "{}", sum(tensors))
