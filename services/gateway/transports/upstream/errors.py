"""What goes wrong at another server, as errors of the table. Words name the server, never its key.

Source: the error pages of OpenAI's API reference, and what vLLM and llama.cpp's server answer.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, cast

import msgspec

from services.backplane.errors import FleetError, Reason
from services.backplane.excerpt import excerpt

_MOST_QUOTED_BYTES: Final = 400
_LONGEST_RETRY_SECONDS: Final = 3600.0
_BUSY_SECONDS: Final = 1.0
_IS_TOO_LONG: Final = re.compile(
    r"context_length_exceeded|maximum context length|exceed_context_size|prompt is too long"
)
# "Unsupported value: 'stream' does not support true with this model", also within other words.
_NO_STREAM: Final = re.compile(
    r"\bstream(ing)?\b[\\'\"`]*\s+(is|does|are|mode is|isn't|not)\b|"
    r"(\bnot|n't|\bunsupported|\bverified)\b[^.]{0,60}\bstream(ing)?\b",
    re.IGNORECASE,
)
_TOO_LONG_STATUSES: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})
_BAD: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})
# Codes and types of errors that some servers send with status 200.
_FULL_TOLD: Final = frozenset({"429", "rate_limit_exceeded", "rate_limit_error", "queue_full"})
_KEY_REFUSED_TOLD: Final = frozenset({"401", "403", "invalid_api_key", "authentication_error"})
# What stands before a server says so of it.
_AWAY: Final = frozenset(
    {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)
_KEY_REFUSED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class StreamRefusedError(FleetError):
    """The server tells a model's answers as one piece alone; asked so, it may answer."""


class UpstreamAwayError(FleetError):
    """The server could not be reached, or did not answer: another request would find the same."""


class Words:
    """Words the errors of one server.

    Args:
        name: of the server.
        key: that must not be repeated.

    Attributes:
        who: what it is called at the beginning of a sentence.
    """

    def __init__(self, name: str, key: str) -> None:
        self.who = f"The upstream {name!r}"
        self._key = key

    def failed(self, what: str, *, retry_after_seconds: float | None = None) -> FleetError:
        """UPSTREAM_FAILED; `what` goes on behind its name."""
        return FleetError(
            Reason.UPSTREAM_FAILED,
            f"{self.who} {self._hidden(what)}.",
            retry_after_seconds=retry_after_seconds,
        )

    def away(self, what: str, *, retry_after_seconds: float | None = None) -> UpstreamAwayError:
        """UPSTREAM_FAILED: it could not be reached; `what` goes on behind its name."""
        told = f"{self.who} {self._hidden(what)}."
        return UpstreamAwayError(
            Reason.UPSTREAM_FAILED, told, retry_after_seconds=retry_after_seconds
        )

    def resting(self, failures: int, seconds: float) -> FleetError:
        """UPSTREAM_FAILED: it is not asked, because it could not be reached for so many times."""
        return FleetError(
            Reason.UPSTREAM_FAILED,
            f"{self.who} could not be reached for {failures} times in a row and rests.",
            retry_after_seconds=seconds,
        )

    def late(self, seconds: float) -> FleetError:
        """DEADLINE: an answer does not go on."""
        return FleetError(Reason.DEADLINE, f"{self.who} said nothing new for {seconds:g} seconds.")

    def endless(self, seconds: float) -> FleetError:
        """DEADLINE: an answer does not end."""
        return FleetError(
            Reason.DEADLINE, f"{self.who} did not end its answer within {seconds:g} seconds."
        )

    def full(self, streams: int) -> FleetError:
        """QUEUE_FULL: this gateway asks no more of it."""
        return FleetError(
            Reason.QUEUE_FULL,
            f"{self.who} answers {streams} requests of this gateway already, its most.",
            retry_after_seconds=_BUSY_SECONDS,
        )

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> FleetError:
        """What a status other than 200 means.

        Args:
            status: of HTTP.
            headers: its; `retry-after` is read.
            body: as much of it as was read.
        """
        if status in _KEY_REFUSED:  # not quoted: some answer with a part of the key
            return self.failed(f"does not let this gateway in (HTTP {status})")
        error = _error_in(body)
        said = self._quoted(error)
        if status in _TOO_LONG_STATUSES and _is_too_long(error):
            return FleetError(Reason.CONTEXT_TOO_LONG, f"{self.who} refused the prompt{said}.")
        if status in _BAD:
            kind = StreamRefusedError if _is_of_stream(error) else FleetError
            return kind(
                Reason.BAD_REQUEST,
                f"{self.who} refused the request{said}.",
                field=self._field(error),
            )
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return FleetError(
                Reason.BODY_TOO_LARGE, f"{self.who} takes no request of this size{said}."
            )
        wait = _retry_after(headers)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return self._no_more(said, _BUSY_SECONDS if wait is None else wait)
        how = self.away if status in _AWAY else self.failed
        return how(f"answered with HTTP {status}{said}", retry_after_seconds=wait)

    def told(self, error: Any) -> FleetError:
        """What an error within a stream means, or one that came with status 200."""
        found = _as_error(error)
        kinds = {str(found.get("code")), str(found.get("type"))}
        if not _KEY_REFUSED_TOLD.isdisjoint(kinds):  # not quoted, as above
            return self.failed("does not let this gateway in")
        said = self._quoted(found)
        if _is_too_long(found):
            return FleetError(Reason.CONTEXT_TOO_LONG, f"{self.who} refused the prompt{said}.")
        if not _FULL_TOLD.isdisjoint(kinds):
            return self._no_more(said, _BUSY_SECONDS)
        return self.failed(f"ended the answer with an error{said}")

    def require_no_error(self, body: bytes) -> None:
        """Raises the error in a body that came with status 200 in place of a stream.

        Raises:
            FleetError: there is one.
        """
        found = _decoded(body)
        if isinstance(found, dict) and (error := cast("dict[str, Any]", found).get("error")):
            raise self.told(error)

    def _no_more(self, said: str, wait: float) -> FleetError:
        return FleetError(
            Reason.QUEUE_FULL,
            f"{self.who} takes no more requests now{said}.",
            retry_after_seconds=wait,
        )

    def _quoted(self, error: Mapping[str, Any]) -> str:
        message = error.get("message")
        if not isinstance(message, str) or not message.strip():
            return ""
        words = " ".join(self._hidden(message).split()).rstrip(".")
        return f": {excerpt(words, _MOST_QUOTED_BYTES)}"

    def _field(self, error: Mapping[str, Any]) -> str | None:
        param = error.get("param")
        return self._hidden(param) if isinstance(param, str) and param else None

    def _hidden(self, words: str) -> str:
        return words.replace(self._key, "…") if self._key else words


def _error_in(body: bytes) -> Mapping[str, Any]:
    found = _decoded(body)
    if isinstance(found, dict) and "error" in found:
        return _as_error(cast("dict[str, Any]", found)["error"])
    return _as_error(found)


def _decoded(body: bytes) -> Any:
    """What stands in a body; an empty object where it is no JSON."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def _as_error(found: Any) -> Mapping[str, Any]:
    if isinstance(found, str):
        return {"message": found}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _is_too_long(error: Mapping[str, Any]) -> bool:
    told = (error.get("code"), error.get("type"), error.get("message"))
    return any(isinstance(one, str) and _IS_TOO_LONG.search(one) for one in told)


def _is_of_stream(error: Mapping[str, Any]) -> bool:
    """Whether a refusal is of `stream` alone."""
    message, param = error.get("message"), error.get("param")
    if isinstance(param, str) and param:
        return param == "stream"
    return isinstance(message, str) and bool(_NO_STREAM.search(message))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of `Retry-After`, a number or a date; None where it says nothing."""
    said = headers.get("retry-after", "").strip()
    if not said:
        return None
    try:
        seconds = float(said)
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(said)
        except (ValueError, OverflowError):
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=dt.UTC)
        seconds = (when - dt.datetime.now(dt.UTC)).total_seconds()
    if seconds != seconds:  # noqa: PLR0124 - not a number
        return None
    return min(max(seconds, 0.0), _LONGEST_RETRY_SECONDS)
