"""What other servers answer in place of an answer, as errors of the table."""

import datetime as dt
import email.utils
import json

import pytest

from services.backplane.errors import Reason
from services.gateway.transports.upstream.errors import StreamRefusedError, Words

WORDS = Words("far", "sk-secret")


def body(**error: object) -> bytes:
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize(
    ("status", "content", "reason"),
    [
        (400, body(message="No."), Reason.BAD_REQUEST),
        (422, b'{"detail": "No."}', Reason.BAD_REQUEST),
        (400, body(code="context_length_exceeded"), Reason.CONTEXT_TOO_LONG),
        (400, body(message="This model's maximum context length is 5"), Reason.CONTEXT_TOO_LONG),
        (400, body(type="exceed_context_size_error"), Reason.CONTEXT_TOO_LONG),
        (413, body(message="Large."), Reason.BODY_TOO_LARGE),
        (429, body(message="Slow down."), Reason.QUEUE_FULL),
        (401, body(message="Key sk-s**t"), Reason.UPSTREAM_FAILED),
        (403, b"", Reason.UPSTREAM_FAILED),
        (404, body(message="no such model"), Reason.UPSTREAM_FAILED),
        (302, b"", Reason.UPSTREAM_FAILED),
        (500, b"<html>", Reason.UPSTREAM_FAILED),
        (503, b"\xff\x00", Reason.UPSTREAM_FAILED),
        (204, b"null", Reason.UPSTREAM_FAILED),
        (500, b"[" * 60_000, Reason.UPSTREAM_FAILED),
    ],
)
def test_statuses(status: int, content: bytes, reason: Reason):
    error = WORDS.refused(status, {}, content)

    assert reason is error.reason
    assert error.message.startswith("The upstream 'far' ")
    assert "sk-s" not in error.message


def test_the_field_at_fault_is_passed_on():
    error = WORDS.refused(400, {}, body(message="Bad.", param="messages[0].content"))

    assert "messages[0].content" == error.field
    assert error.message.endswith(": Bad.")


def test_a_key_is_not_repeated_and_a_long_message_is_cut():
    error = WORDS.refused(400, {}, body(message="sk-secret " * 1000, param="sk-secret"))

    assert "sk-secret" not in f"{error} {error.field}"
    assert len(error.message) < 600


def test_when_to_come_again():
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=100)
    date = email.utils.format_datetime(later, usegmt=True)

    def wait(said: str, status: int = 429) -> float | None:
        return WORDS.refused(status, {"retry-after": said}, b"").retry_after_seconds

    assert (7.0, 0.0, 3600.0) == (wait("7"), wait("-5"), wait("1e9"))
    assert 90 < (wait(date) or 0) <= 100
    never = "Wed, 1 Jan 99999999999999999999 00:00:00"
    assert [1.0] * 4 == [wait(said) for said in ("", "soon", "nan", never)]
    assert (7.0, None) == (wait("7", 503), wait("", 503))


def test_a_full_upstream_says_when_to_come_again():
    error = WORDS.full(3)

    assert (Reason.QUEUE_FULL, 1.0) == (error.reason, error.retry_after_seconds)
    assert "'far' answers 3 requests" in error.message


@pytest.mark.parametrize(
    ("error", "is_of_stream"),
    [
        ({"message": "No.", "param": "stream"}, True),
        ({"message": "Unsupported value: 'stream' does not support true with this model."}, True),
        ({"message": r"litellm.BadRequestError: {\'message\': \"value: \'stream\' does not"}, True),
        ({"message": "This model doesn't support streaming."}, True),
        ({"message": "Your organization must be verified to stream this model."}, True),
        ({"message": "Unknown field", "param": "stream_options"}, False),
        ({"message": "'stream_options' is not supported"}, False),
        ({"message": "Water streams downhill."}, False),
        ({"message": 5}, False),
    ],
)
def test_a_refusal_of_streams_is_told_apart(error: dict[str, object], is_of_stream: bool):
    found = WORDS.refused(400, {}, body(**error))

    assert is_of_stream == isinstance(found, StreamRefusedError)
    assert Reason.BAD_REQUEST is found.reason
