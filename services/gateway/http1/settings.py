"""What all connections of one server share."""

from dataclasses import dataclass, field

from services.gateway.http1.head import DateHeader
from services.gateway.http1.limits import ErrorBody, Http1Limits, plain_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Http1Settings:
    """Made once per server and passed to each of its connections."""

    limits: Http1Limits = field(default_factory=Http1Limits)
    error_body: ErrorBody = plain_error
    date: DateHeader = field(default_factory=DateHeader)
