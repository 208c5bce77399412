"""What a failure means for the next attempt."""

from __future__ import annotations

import pytest

from services.backplane.errors import FleetError, Reason
from services.gateway.routing.candidates import Availability, InstanceCandidate
from services.gateway.routing.retry import RetryState


def candidate(report: int) -> tuple[InstanceCandidate, ...]:
    return (InstanceCandidate("a", "m", "n", "x:1", Availability.SERVING, report=("1", report)),)


@pytest.mark.parametrize(
    ("reason", "goes_on"),
    [
        (Reason.NEURON_LOST, True),
        (Reason.INSTANCE_DRAINING, True),
        (Reason.QUEUE_FULL, True),
        (Reason.CONTEXT_TOO_LONG, False),
        (Reason.CANCELLED, False),
        (Reason.SLOW_READER, False),
        (Reason.INTERNAL, False),
    ],
)
def test_only_what_another_instance_may_do_better_is_tried_again(
    reason: Reason, goes_on: bool
) -> None:
    assert RetryState(2).may_go_on(FleetError(reason, "x")) is goes_on


def test_attempts_run_out() -> None:
    retry = RetryState(1)
    error = FleetError(Reason.NEURON_LOST, "x")

    retry.note("a", ("1", 1), error)

    assert not retry.may_go_on(error)


@pytest.mark.parametrize(
    ("reason", "made_tokens", "goes_on"),
    [
        (Reason.NEURON_LOST, True, True),
        (Reason.SHUTTING_DOWN, True, True),
        (Reason.NEURON_LOST, False, False),
        (Reason.WORKER_LOST, True, False),
    ],
    ids=["its neuron died", "it was told to go", "it made nothing", "it may die of the request"],
)
def test_an_instance_that_went_behind_some_tokens_takes_no_attempts(
    reason: Reason, made_tokens: bool, goes_on: bool
) -> None:
    retry = RetryState(2)
    error = FleetError(reason, "x")

    for name in "abcd":
        retry.note(name, ("1", 1), FleetError(Reason.NEURON_LOST, "nobody there"))
        retry.note(name, ("1", 1), error, made_tokens=made_tokens)

    assert retry.may_go_on(error) is goes_on


def test_a_request_that_waits_is_passed_on_by_drains_and_not_for_ever() -> None:
    retry = RetryState(2)
    told_to_go = FleetError(Reason.INSTANCE_DRAINING, "x")

    for number in range(7):
        retry.note(str(number), ("1", 1), told_to_go)
    assert retry.may_go_on(told_to_go)
    retry.note("8", ("1", 1), told_to_go)

    assert not retry.may_go_on(told_to_go)


@pytest.mark.parametrize(
    ("reason", "report", "excluded"),
    [
        (Reason.WORKER_LOST, 1, {"a"}),
        (Reason.WORKER_LOST, 2, set()),
        (Reason.QUEUE_FULL, 2, {"a"}),
    ],
    ids=["no news", "a newer report says ready", "a refusal stays a refusal"],
)
def test_a_lost_instance_is_asked_again_once_there_is_news(
    reason: Reason, report: int, excluded: set[str]
) -> None:
    retry = RetryState(4)

    retry.note("a", ("1", 1), FleetError(reason, "x"))

    assert retry.excluded(candidate(report)) == excluded
    assert retry.failed_instances == ["a"]
