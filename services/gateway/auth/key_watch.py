"""Follows the keys of the registry's store, and tells it which of them are used."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol

import structlog

from cortex.v1 import key_service_pb2 as pb
from cortex.v1 import key_service_pb2_grpc as key_grpc
from services.backplane.backoff import delays
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.rpc.calls import streaming, unary
from services.backplane.rpc.channels import ChannelPool
from services.backplane.security.roles import Role
from services.backplane.timeouts import timeout
from services.gateway.auth.store_keys import StoreKeys

# The registry says something every five seconds: one that does not is not there.
_SILENCE_SECONDS: Final = 20.0
_AWAY: Final = frozenset({Reason.REGISTRY_UNAVAILABLE, Reason.NOT_LEADER})
REPORT_SECONDS: Final = 60.0
_ANSWER_SECONDS: Final = 5.0

log = structlog.get_logger()


class FollowedRegistry(Protocol):
    """The registry that the gateway follows; it changes when another one leads."""

    @property
    def address(self) -> str:
        """Where it listens."""
        ...


class KeyWatch:
    """Keeps the keys as the registry has them.

    Args:
        channels: to registries.
        followed: which of the registries is asked.
        keys: what is kept up to date.
        faults: what nobody foresaw.
    """

    def __init__(
        self, channels: ChannelPool, followed: FollowedRegistry, keys: StoreKeys, faults: Faults
    ) -> None:
        self._channels = channels
        self._followed = followed
        self._keys = keys
        self._faults = faults

    async def run(self) -> None:
        """Follows until cancelled; while no registry answers, the keys stay as they were."""
        pauses = delays(first=0.05, cap=1.0)
        is_away = False
        while True:
            began = time.monotonic()
            address = self._followed.address
            try:
                await self._watch(address)
            except FleetError as error:
                if not is_away:
                    log.warning(
                        "keys.unfollowed",
                        address=address,
                        reason=error.reason.value,
                        detail=error.message,
                    )
                is_away = True
                # an older registry has no keys to tell of
                self._keys.is_settled |= error.reason not in _AWAY
            except Exception as error:  # noqa: BLE001 - the root of a task that everybody needs
                self._faults.note("key-watch", error)
                self._keys.revision = None
            self._keys.broken()
            if time.monotonic() - began > 1.0:
                pauses, is_away = delays(first=0.05, cap=1.0), False
            await asyncio.sleep(next(pauses))

    async def report(self) -> None:
        """Reports which keys were used since the last call; what cannot be sent is dropped."""
        used = self._keys.take_used()
        if used:
            call = self._stub(self._followed.address).ReportKeyUse(
                pb.ReportKeyUseRequest(key_ids=used), timeout=_ANSWER_SECONDS
            )
            try:
                await unary(call, unavailable=Reason.REGISTRY_UNAVAILABLE)
            except FleetError as error:
                log.debug("keys.use_untold", detail=error.message)

    async def _watch(self, address: str) -> None:
        request = pb.WatchKeysRequest()
        if self._keys.revision is not None:
            request.after_revision = self._keys.revision
            request.registry_incarnation_id = self._keys.registry_incarnation_id
        call = self._stub(address).WatchKeys(request)
        async with streaming(call, unavailable=Reason.REGISTRY_UNAVAILABLE) as changes:
            coming = aiter(changes)
            while True:
                try:
                    async with timeout(_SILENCE_SECONDS):
                        change = await anext(coming)
                except StopAsyncIteration:
                    break
                except TimeoutError:
                    told = f"It has said nothing for {_SILENCE_SECONDS:g} seconds."
                    raise FleetError(Reason.REGISTRY_UNAVAILABLE, told) from None
                self._keys.apply(change)
        raise FleetError(Reason.REGISTRY_UNAVAILABLE, "The registry ended the watch.")

    def _stub(self, address: str) -> key_grpc.KeyServiceAsyncStub:
        return key_grpc.KeyServiceStub(self._channels.get(address, role=Role.REGISTRY))
