"""What the console keeps of the requests that have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from typing_extensions import override

from services.gateway.api.access_log import RequestListener
from services.gateway.api.request import RequestRecord
from services.gateway.console.ledger import RequestLedger
from services.gateway.console.rates import Rates
from services.gateway.console.usage import Usage
from services.gateway.limits.usage import UsageCounts
from services.gateway.telemetry.outcome import RequestOutcome
from services.gateway.telemetry.request_log import RequestLine


class RequestHistory(RequestListener):
    """Hears of every request at its end, and counts it for the console.

    Args:
        running: the records of all requests under way.
        reported: what the registry is told of them.

    Attributes:
        reported: what the registry is told of requests.
        ledger: the last requests, one by one.
        usage: requests and tokens by key, model and neuron.
        rates: tokens per second, times to the first token.
    """

    def __init__(
        self, running: Callable[[], Iterable[RequestRecord]], reported: UsageCounts
    ) -> None:
        self.reported = reported
        self.ledger = RequestLedger()
        self.usage = Usage()
        self.rates = Rates(running)

    @override
    def ended(self, record: RequestRecord, line: RequestLine, model: str) -> None:
        self.rates.ended(record)
        self.ledger.note(line, model)

    @override
    def counted(self, outcome: RequestOutcome) -> None:
        self.rates.counted(outcome)
        if outcome.is_named or outcome.has_failed:
            self.usage.note(outcome)
