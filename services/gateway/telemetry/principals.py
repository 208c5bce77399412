"""Prometheus counters by principal: the first few hundred have a series each, the others one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from cortex.v1 import accounting_service_pb2 as pb
from services.backplane.security.principals import OTHERS

_MOST: Final = 200
_KINDS: Final = ("prompt", "cached", "completion", "reasoning")


class PrincipalMetrics:
    """Counts what principals use.

    Args:
        registry: of Prometheus, in which they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._names: set[str] = set()
        self._requests = Counter(
            "cortex_gateway_principal_requests_total",
            "Requests that named a model and have ended, by principal; empty: without a key.",
            ("principal",),
            registry=registry,
        )
        self._tokens = Counter(
            "cortex_gateway_principal_tokens_total",
            "Tokens by principal and kind; cached ones are prompt tokens too, reasoning ones "
            "completion tokens.",
            ("principal", "kind"),
            registry=registry,
        )

    def add(self, rows: Iterable[pb.UsageRow]) -> None:
        """Adds what was used."""
        for row in rows:
            name = self._known(row.principal)
            self._requests.labels(name).inc(row.requests)
            for kind in _KINDS:
                self._tokens.labels(name, kind).inc(getattr(row, f"{kind}_tokens"))

    def _known(self, principal: str) -> str:
        if principal not in self._names and len(self._names) >= _MOST:
            return OTHERS
        self._names.add(principal)
        return principal
