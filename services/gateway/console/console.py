"""The console of one gateway process: its parts, and its routes."""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from starlette.routing import Route
from typing_extensions import override

from services import __version__
from services.backplane.errors import FleetError
from services.backplane.process.faults import Faults
from services.gateway.api.access_log import RequestListener, RequestRecord
from services.gateway.api.auth import ConsoleLevel
from services.gateway.api.error_responses import ErrorResponses
from services.gateway.api.services import GatewayServices
from services.gateway.console import assets
from services.gateway.console.access import ConsoleAccess
from services.gateway.console.endpoint import Call, ConsoleEndpoint, OpenCalls
from services.gateway.console.events import EventStreams
from services.gateway.console.feed import Feed
from services.gateway.console.ledger import MOST_REQUESTS, RequestLedger
from services.gateway.console.operations import Operations
from services.gateway.console.pending import PendingPlacements
from services.gateway.console.rates import Rates
from services.gateway.console.registry_operator import RegistryOperator
from services.gateway.console.usage import KEYS, WINDOWS, Usage
from services.gateway.dialects.common.json_body import bad
from services.gateway.telemetry.request_log import RequestLine

# How often open consoles are told what has changed, at most.
REFRESH_SECONDS: Final = 0.25
SECOND: Final = 1.0


class Console(RequestListener):
    """Follows what goes on in this process, and serves `/ui`.

    Args:
        services: of the gateway.
        operator: asks the registry.
        running: the records of all requests under way.
        faults: notes what nobody foresaw.
    """

    def __init__(
        self,
        services: GatewayServices,
        operator: RegistryOperator,
        running: Callable[[], Iterable[RequestRecord]],
        faults: Faults,
    ) -> None:
        self._services = services
        self._operator = operator
        self._faults = faults
        self._began_at = time.time()
        self._ledger = RequestLedger()
        self._usage = Usage()
        self._rates = Rates(running)
        self._pending = PendingPlacements(operator)
        self._calls = OpenCalls()
        self._access = ConsoleAccess(services.auth, services.doors)
        self._operations = Operations(operator)
        self._feed = Feed(
            services.view,
            self._ledger,
            {"registry": self._registry, "pending": self._pending.told, "rates": self._told_rates},
        )
        self._streams = EventStreams(self._feed, self._ledger, self._visitor)
        self._rates_now = self._rates.told()

    @override
    def ended(self, record: RequestRecord, line: RequestLine, model: str) -> None:
        self._rates.ended(record, line)
        seen = self._ledger.note(line, model)
        if seen is not None:
            self._usage.note(seen)

    async def refresh(self) -> None:
        """Tells the open pages what has changed."""
        if self._streams.count:
            self._feed.refresh()

    async def count(self) -> None:
        """Takes in a second, for rates and their history."""
        self._rates.tick()
        self._rates_now = self._rates.told()

    async def ask(self) -> None:
        """Asks the registry what waits, where anybody looks."""
        if self._streams.count:
            await self._pending.ask()

    def close(self, error: FleetError) -> None:
        """Ends what is under way, and refuses others."""
        self._calls.close(error)

    def routes(self, error_responses: ErrorResponses) -> Sequence[Route]:
        """Everything below `/ui`."""
        view, operate = ConsoleLevel.VIEW, ConsoleLevel.OPERATE
        made = functools.partial(ConsoleEndpoint, self._access, self._calls, self._faults)
        looks = {
            "events": self._streams.serve,
            "requests": self._requests,
            "usage": self._usage_table,
            "explain": self._operations.explain,
        }
        page = assets.Page(self._services.doors, error_responses)
        return [
            *(Route(f"/ui/{n}", made(view, work), methods=["GET"]) for n, work in looks.items()),
            *(
                Route(f"/ui/{name}", made(operate, work), methods=["POST"])
                for name, work in self._operations.by_name().items()
            ),
            *assets.routes(page),
        ]

    async def _requests(self, call: Call) -> None:
        query = _query(call, "limit", "model", "key")
        given = query.get("limit", str(MOST_REQUESTS))
        # the length first: Python reads no number of thousands of digits
        if not re.fullmatch(r"[0-9]{1,9}", given) or not 1 <= int(given) <= MOST_REQUESTS:
            raise bad("limit", f"Expected a whole number from 1 to {MOST_REQUESTS}.")
        found = self._ledger.newest(
            int(given), model=query.get("model", ""), principal=query.get("key", "")
        )
        call.answer({"requests": found, "count": self._ledger.count, "process": self._process()})

    async def _usage_table(self, call: Call) -> None:
        query = _query(call, "by", "window")
        by, window = query.get("by", KEYS[0]), query.get("window", "1h")
        if by not in KEYS:
            raise bad("by", f"Expected one of {', '.join(KEYS)}.")
        if window not in WINDOWS:
            raise bad("window", f"Expected one of {', '.join(WINDOWS)}.")
        call.answer({**self._usage.table(by, window), "process": self._process()})

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
        return self._rates_now

    def _visitor(self, call: Call) -> dict[str, Any]:
        return {
            "principal": call.visitor.principal,
            "console": call.visitor.level.word,
            "operations_refused": self._operator.refused(),
            "now": round(time.time(), 3),
            "process": self._process(),
            "history": self._rates.history(),
            "requests": self._ledger.newest(50),
        }


def _query(call: Call, *known: str) -> dict[str, str]:
    """The query of a look-up.

    Raises:
        FleetError: BAD_REQUEST: it has a parameter that nobody reads.
    """
    for name in call.head.query:
        if name not in known:
            raise bad(name, f"It is not read here; {', '.join(known)} are.")
    return dict(call.head.query)
