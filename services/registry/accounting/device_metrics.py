"""Prometheus counters of the devices' time by principal: a few hundred have series of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from services.backplane.security.principals import OTHERS
from services.registry.store.ledger import DeviceTotal

_MOST: Final = 200
_MICROSECOND: Final = 1e-6
_KINDS: Final = ("prefill", "decode", "load", "unload")


class DeviceUseMetrics:
    """Counts device time by principal.

    Args:
        registry: of Prometheus, in which they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._names: set[str] = set()
        self._seconds = Counter(
            "cortex_registry_principal_device_seconds_total",
            "Seconds that devices worked, by principal and kind; empty: without a key.",
            ("principal", "kind"),
            registry=registry,
        )

    def note(self, grown: Iterable[DeviceTotal]) -> None:
        """Adds device time that neurons have reported."""
        for one in grown:
            name = self._known(one.principal)
            for kind in _KINDS:
                self._seconds.labels(name, kind).inc(getattr(one, kind) * _MICROSECOND)

    def _known(self, principal: str) -> str:
        if principal not in self._names and len(self._names) >= _MOST:
            return OTHERS
        self._names.add(principal)
        return principal
