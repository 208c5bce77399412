"""What all connections of one server share."""

from dataclasses import dataclass, field

import structlog

from services.gateway.http1.head import DateHeader, encode_refusal
from services.gateway.http1.limits import (
    ErrorBody,
    Http1Limits,
    Refused,
    Unanswered,
    plain_error,
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Http1Settings:
    """Made once per server and passed to each of its connections.

    Attributes:
        limits: bounds of one connection.
        error_body: words refusals.
        date: the `date` header, shared so that it is made once a second.
    """

    limits: Http1Limits = field(default_factory=Http1Limits)
    error_body: ErrorBody = plain_error
    date: DateHeader = field(default_factory=DateHeader)

    def refusal(self, refused: Refused, asked: Unanswered) -> bytes:
        """Encodes the answer to a refused request, in the app's words where it finds any."""
        date, bodyless = self.date.line(), asked.method == "HEAD"
        try:
            wording = self.error_body(refused.status, refused.reason, asked)
            return encode_refusal(refused.status, wording, date=date, bodyless=bodyless)
        except Exception:
            # A callback of the app's must not leave the client without an answer.
            log.exception("refusal.wording_failed", status=refused.status)
        wording = plain_error(refused.status, refused.reason, asked)
        return encode_refusal(refused.status, wording, date=date, bodyless=bodyless)
