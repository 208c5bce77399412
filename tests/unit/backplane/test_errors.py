import weakref

import grpc
import pytest

from services.backplane.errors import TABLE, FleetError, Reason, Retry, context_too_long


def test_every_reason_has_a_row():
    assert set(Reason) == set(TABLE)


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.value)
def test_a_row_agrees_with_itself(reason):
    row = reason.row

    assert 400 <= row.http <= 599
    if row.http in {400, 413, 422}:
        assert row.grpc in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}
    if row.retry is not Retry.NEVER:
        assert row.http in {429, 500, 502, 503}
    assert row.openai_type
    assert row.anthropic_type.endswith("_error") or row.anthropic_type == "request_too_large"


def test_a_context_overflow_carries_both_numbers():
    error = context_too_long(prompt_tokens=9000, max_tokens=8192)

    assert {"prompt_tokens": "9000", "max_context_tokens": "8192"} == error.facts
    assert "9000" in error.message
    assert "8192" in error.message


def test_an_overflow_that_was_not_counted_to_its_end_says_so():
    error = context_too_long(prompt_tokens=9000, max_tokens=8192, is_minimum=True)

    assert "at least 9000 tokens" in error.message
    assert error.facts["prompt_tokens"] == "9000"  # clients parse what dialects make of it
    assert error.facts["prompt_tokens_is_minimum"] == "true"


def test_an_error_reads_as_reason_and_sentence():
    assert "QUEUE_FULL: no" == str(FleetError(Reason.QUEUE_FULL, "no"))


def test_no_text_of_a_caller_makes_an_error_long():
    long = "a" * 5_000_000

    error = FleetError(Reason.BAD_REQUEST, f"{long}: no.", field=long, facts={"name": long})

    assert len(error.message.encode()) <= 1_000
    assert error.message.endswith("a: no.")
    assert len(error.field or "") <= 200
    assert len(error.facts["name"]) <= 200


def test_an_error_that_is_kept_keeps_no_frames() -> None:
    """What a request has read is in the frames of the error that it ended with."""

    class Large:
        pass

    def read() -> weakref.ref[Large]:
        large = Large()
        held.append(weakref.ref(large))
        try:
            raise KeyError("x")
        except KeyError as error:
            raise FleetError(Reason.BAD_REQUEST, "It cannot be read.") from error

    held: list[weakref.ref[Large]] = []
    kept: list[FleetError] = []
    try:
        read()
    except FleetError as error:
        kept.append(error.without_frames())

    assert held[0]() is None
    assert str(kept[0]) == "BAD_REQUEST: It cannot be read."
