"""What this process shares with others through the registry: limits, and what was used."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry

from services.backplane.errors import FleetError
from services.backplane.process.faults import Faults
from services.gateway.limits.leases import ShareLeases
from services.gateway.limits.limiter import Limiter
from services.gateway.limits.settings import KeyLimits
from services.gateway.limits.usage import UsageCounts
from services.gateway.routing.registry_client import RegistryClient
from services.gateway.settings import GatewaySettings
from services.gateway.telemetry.principals import PrincipalMetrics

_REPORT_SECONDS: Final = 1.0


class Accounting:
    """The limiter and the counts of usage, and the tasks that keep them going.

    Args:
        registry_client: calls the registry.
        limits_of: the limits of a principal; None: it has none.
        settings: say how long limits are held to without the registry.
        registry: of Prometheus.

    Attributes:
        limiter: lets requests through.
        usage: counts them at their end.
    """

    def __init__(
        self,
        registry_client: RegistryClient,
        limits_of: Callable[[str], KeyLimits | None],
        settings: GatewaySettings,
        registry: CollectorRegistry,
    ) -> None:
        holder = uuid.uuid4().hex
        self._registry_client = registry_client
        self._leases = ShareLeases(
            registry_client, holder=holder, away_seconds=settings.limits_away_seconds
        )
        self._metrics = PrincipalMetrics(registry)
        self.limiter = Limiter(limits_of, self._leases)
        self.usage = UsageCounts(holder)

    def start(self, faults: Faults) -> list[asyncio.Task[None]]:
        """The tasks that keep shares at hand and tell what was used; the caller cancels them."""
        return [
            faults.vital(self._leases.run(faults), name="limits"),
            faults.repeat("usage", self._report, _REPORT_SECONDS),
        ]

    async def close(self) -> None:
        """Tells what was used, and gives what was leased back."""
        await self._leases.close()
        await self._report()

    async def _report(self) -> None:
        """Tells the registry what was used; what it does not take in is told the next time."""
        with contextlib.suppress(FleetError, TimeoutError):
            await self.usage.flush(self._registry_client, self._metrics.add)
