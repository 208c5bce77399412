"""Errors outside of any dialect, worded for the API that the client is most likely to speak."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from services.backplane.errors import FleetError, Reason
from services.gateway.api.cors import Origins
from services.gateway.api.head import lone_head
from services.gateway.dialects.dialect import Envelope
from services.gateway.http1.limits import Unanswered, Wording
from services.gateway.telemetry.metrics import GatewayMetrics

# Statuses that the server or the framework decides on, and the reasons that say the same.
_BY_STATUS: Final[Mapping[int, Reason]] = {
    404: Reason.NOT_FOUND,
    405: Reason.METHOD_NOT_ALLOWED,
    408: Reason.BODY_TOO_SLOW,
    413: Reason.BODY_TOO_LARGE,
    415: Reason.UNSUPPORTED_MEDIA_TYPE,
    429: Reason.RATE_LIMITED,
    503: Reason.SHUTTING_DOWN,
}
_INTERNAL_FROM: Final = 500
_DEFAULT_RETRY_SECONDS: Final = 2
# Read by the SDKs of OpenAI and Anthropic, which would try again within seconds.
_NO_RETRY: Final = (b"x-should-retry", b"false")
# When to come again is told where it is known, and not guessed.
_WAIT_IF_TOLD: Final = frozenset({Reason.QUOTA_EXHAUSTED, Reason.UPSTREAM_FAILED})
_LONGEST_PATH: Final = 200
# Anthropic's and Ollama's clients want the address alone, OpenAI's want it with /v1.
_DOUBLED: Final = ("/v1/v1/", "/v1/api/")

log = structlog.get_logger()


def error_headers(error: FleetError, request_id: str) -> list[tuple[bytes, bytes]]:
    """Headers of an error response: type, ids, and when to come again."""
    name = request_id.encode("latin-1")
    headers = [
        (b"content-type", b"application/json"),
        (b"x-request-id", name),
        (b"request-id", name),
    ]
    if "never" in error.facts or error.reason is Reason.QUOTA_EXHAUSTED:
        headers.append(_NO_RETRY)
    elif error.reason.row.http in {429, 503}:
        seconds = error.retry_after_seconds or _DEFAULT_RETRY_SECONDS
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(seconds))))
    if error.reason in _WAIT_IF_TOLD and error.retry_after_seconds is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_seconds))))
    if error.reason is Reason.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


class ErrorResponses:
    """Words errors by the path and the headers of the request."""

    def __init__(
        self,
        *,
        default: Envelope,
        by_prefix: Mapping[str, Envelope],
        metrics: GatewayMetrics,
        pages: Origins,
    ) -> None:
        """Prepares.

        Args:
            default: words the errors of requests of which the API is not known.
            by_prefix: by the beginning of a path, or by the name of a header that was sent.
            metrics: counts the errors.
            pages: the origins whose pages may read the answers.
        """
        self._default = default
        self._by_prefix = by_prefix
        self._metrics = metrics
        self._pages = pages

    def envelope(self, path: str, headers: Mapping[str, str]) -> Envelope:
        """What words the errors of a request with this path and these headers."""
        for prefix, envelope in self._by_prefix.items():
            if path.startswith(prefix) or prefix in headers:
                return envelope
        return self._default

    def codec_error(self, status: int, reason: str, asked: Unanswered) -> Wording:
        """Words what the HTTP/1.1 codec has refused by itself; an `ErrorBody`."""
        error = FleetError(_reason(status), _sentence(reason))
        return self._worded(error, status, asked.path, asked.headers)

    def refusal(self, error: FleetError, path: str, headers: Mapping[str, str]) -> Wording:
        """Words what is refused before it reaches any endpoint."""
        return self._worded(error, error.reason.row.http, path, headers)

    async def on_http_exception(self, request: Request, failure: Exception) -> Response:
        """Words what the router has refused."""
        assert isinstance(failure, HTTPException)
        path = request.url.path
        if failure.status_code == HTTPStatus.NOT_FOUND:
            message = f"There is nothing at {path}."
            if path.startswith(_DOUBLED):
                message += " The client adds /v1 itself: its base URL ends before it."
        elif failure.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            message = f"{path} does not take {request.method}."
        else:
            message = _sentence(str(failure.detail))
        error = FleetError(_reason(failure.status_code), message)
        return self._response(request, error, failure.status_code, failure.headers)

    async def on_crash(self, request: Request, failure: Exception) -> Response:
        """Words a bug; the traceback is in the log and nowhere else."""
        del failure
        error = FleetError(Reason.INTERNAL, "The gateway failed; its log says why.")
        return self._response(request, error, _INTERNAL_FROM, None)

    def _worded(
        self, error: FleetError, status: int, path: str, asked: Mapping[str, str]
    ) -> Wording:
        head = lone_head(asked)
        self._note(error, status, path, head.request_id)
        headers = [*error_headers(error, head.request_id), *self._pages.headers_for(asked)]
        return Wording(headers, self.envelope(path, asked).error(error, head))

    def _response(
        self, request: Request, error: FleetError, status: int, headers: Mapping[str, str] | None
    ) -> Response:
        head = lone_head(request.headers)
        self._note(error, status, request.url.path, head.request_id)
        body = self.envelope(request.url.path, request.headers).error(error, head)
        made = Response(body, status_code=status, headers=dict(headers or {}))
        for name, value in error_headers(error, head.request_id):
            made.headers[name.decode()] = value.decode("latin-1")
        return made

    def _note(self, error: FleetError, status: int, path: str, request_id: str) -> None:
        """Logs and counts a request that reached no endpoint."""
        self._metrics.refused(error.reason)
        log.info(
            "request.refused",
            request_id=request_id,
            path=path[:_LONGEST_PATH],
            status=status,
            reason=error.reason.value,
            detail=error.message,
        )


def _reason(status: int) -> Reason:
    fallback = Reason.INTERNAL if status >= _INTERNAL_FROM else Reason.BAD_REQUEST
    return _BY_STATUS.get(status, fallback)


def _sentence(text: str) -> str:
    text = text.strip() or "The request was refused"
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")
