"""The console of one gateway process: its parts, and its routes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Sequence
from typing import Any, Final

from starlette.routing import Route

from cortex.v1 import accounting_service_pb2 as pb
from cortex.v1 import accounting_service_pb2_grpc as accounting_grpc
from services import __version__
from services.backplane.errors import FleetError
from services.gateway.api.error_responses import ErrorResponses
from services.gateway.api.operators.call import OperatorCall
from services.gateway.api.operators.endpoint import OperatorEndpoints
from services.gateway.api.operators.registry_operator import RegistryOperator
from services.gateway.api.services import GatewayServices
from services.gateway.auth.holder import ConsoleLevel
from services.gateway.console import assets
from services.gateway.console.events import EventStreams
from services.gateway.console.feed import Feed
from services.gateway.console.history import RequestHistory
from services.gateway.console.ledger import MOST_REQUESTS
from services.gateway.console.operations import AUDITED, BODIES, Operations
from services.gateway.console.pending import PendingPlacements
from services.gateway.console.usage import KEYS, WINDOWS
from services.gateway.dialects.common.json_body import bad

# How often open consoles are told what has changed, at most.
_REFRESH_SECONDS: Final = 0.25
_SECOND: Final = 1.0
# Between questions to a registry that has not said what was used before.
_RECALL_SECONDS: Final = 5.0
_EACH: Final = (pb.USAGE_KEY_PRINCIPAL, pb.USAGE_KEY_MODEL, pb.USAGE_KEY_HOUR)


class Console:
    """Shows what goes on in this process, and serves `/ui`.

    Args:
        services: of the gateway.
        operator: asks the registry.
        history: what is kept of requests.
        endpoints: lets visitors in, and makes the routes' endpoints.
    """

    def __init__(
        self,
        services: GatewayServices,
        operator: RegistryOperator,
        history: RequestHistory,
        endpoints: OperatorEndpoints,
    ) -> None:
        self._services = services
        self._operator = operator
        self._history = history
        self._endpoints = endpoints
        self._began_at = time.time()
        self._pending = PendingPlacements(operator)
        self._operations = Operations(operator)
        self._feed = Feed(
            services.view,
            history.ledger,
            {"registry": self._registry, "pending": self._pending.told, "rates": self._told_rates},
        )
        self._streams = EventStreams(self._feed, history.ledger, self._visitor)
        self._rates_now: dict[str, Any] | None = None

    def tasks(self) -> list[asyncio.Task[None]]:
        """Starts the tasks that keep open pages up to date; the caller cancels them."""
        repeat = self._services.faults.repeat
        return [
            repeat("console", self._refresh, _REFRESH_SECONDS),
            repeat("console-rates", self._count, _SECOND),
            repeat("console-pending", self._ask, _SECOND),
            repeat("console-usage", self._recall, _RECALL_SECONDS),
        ]

    async def _refresh(self) -> None:
        """Tells the open pages what has changed."""
        if self._streams.count:
            self._services.access_log.settle()
            self._feed.refresh()

    async def _count(self) -> None:
        """Takes in a second, for rates and their history."""
        self._services.access_log.settle()
        self._history.rates.tick()
        self._rates_now = None

    async def _ask(self) -> None:
        """Asks the registry what waits, where anybody looks."""
        if self._streams.count:
            await self._pending.ask()

    async def _recall(self) -> None:
        """Asks the registry what was used before this process began, until it has said it.

        Not while a report of this process may be in what it says or not.
        """
        usage, reported = self._history.usage, self._history.reported
        before = reported.stored()
        if not usage.wants_recall or before is None:
            return
        request = pb.GetUsageRequest(since_unix_seconds=usage.first_hour, by=_EACH)
        with contextlib.suppress(FleetError):  # it is away, or of an earlier version
            answer = await self._operator.ask(
                "GetUsage", request, service=accounting_grpc.AccountingServiceStub
            )
            after = reported.stored()
            if after is not None and after[0] == before[0]:
                usage.recall(answer.rows, before[1])

    def routes(self, error_responses: ErrorResponses) -> Sequence[Route]:
        """The routes below `/ui`."""
        view, operate = ConsoleLevel.VIEW, ConsoleLevel.OPERATE
        made = self._endpoints.endpoint
        looks = {
            "events": self._streams.serve,
            "requests": self._requests,
            "usage": self._usage_table,
            "explain": self._operations.explain,
        }
        page = assets.Page(self._services.cross_site, error_responses)
        return [
            *(Route(f"/ui/{n}", made(view, work), methods=["GET"]) for n, work in looks.items()),
            *(
                Route(
                    f"/ui/{name}",
                    made(operate, work, operation=AUDITED[name], bodies=BODIES[name]),
                    methods=["POST"],
                )
                for name, work in self._operations.by_name().items()
            ),
            *assets.routes(page),
        ]

    async def _requests(self, call: OperatorCall) -> None:
        query = _query(call, "limit", "model", "key")
        given = query.get("limit", str(MOST_REQUESTS))
        # the length first: Python reads no number of thousands of digits
        if not re.fullmatch(r"[0-9]{1,9}", given) or not 1 <= int(given) <= MOST_REQUESTS:
            raise bad("limit", f"Expected a whole number from 1 to {MOST_REQUESTS}.")
        self._services.access_log.settle()
        found = self._history.ledger.newest(
            int(given), model=query.get("model", ""), principal=query.get("key", "")
        )
        call.answer(
            {"requests": found, "count": self._history.ledger.count, "process": self._process()}
        )

    async def _usage_table(self, call: OperatorCall) -> None:
        query = _query(call, "by", "window")
        by, window = query.get("by", KEYS[0]), query.get("window", "1h")
        if by not in KEYS:
            raise bad("by", f"Expected one of {', '.join(KEYS)}.")
        if window not in WINDOWS:
            raise bad("window", f"Expected one of {', '.join(WINDOWS)}.")
        self._services.access_log.settle()
        call.answer({**self._history.usage.table(by, window), "process": self._process()})

    def _process(self) -> dict[str, Any]:
        """Which process this is: what it counts are its own requests, not its siblings'."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "workers": self._services.settings.workers,
            "started_at": round(self._began_at, 3),
        }

    def _registry(self) -> dict[str, Any]:
        view = self._services.view
        return {
            "followed": view.is_followed,
            "known": view.is_known,
            "settling": view.is_known and not view.is_complete,
        }

    def _told_rates(self) -> dict[str, Any]:
        if self._rates_now is None:  # once a second, and only where somebody looks
            self._rates_now = self._history.rates.told()
        return self._rates_now

    def _visitor(self, call: OperatorCall) -> dict[str, Any]:
        self._services.access_log.settle()
        return {
            "principal": call.visitor.principal,
            "console": min(call.visitor.level, ConsoleLevel.OPERATE).word,
            "operations_refused": self._operator.refused(),
            "now": round(time.time(), 3),
            "process": self._process(),
            "history": self._history.rates.history(),
            "requests": self._history.ledger.newest(50),
        }


def _query(call: OperatorCall, *known: str) -> dict[str, str]:
    """The query of a look-up.

    Raises:
        FleetError: BAD_REQUEST: it has a parameter that nobody reads.
    """
    for name in call.head.query:
        if name not in known:
            raise bad(name, f"It is not read here; {', '.join(known)} are.")
    return dict(call.head.query)
