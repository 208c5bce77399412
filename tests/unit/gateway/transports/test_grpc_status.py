"""The last headers of a call, as errors of the fleet."""

from __future__ import annotations

import base64

import pytest

from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.status import pack
from services.gateway.transports.grpc_status import end_of_call


def end(**headers: str) -> FleetError:
    found = end_of_call({name.replace("_", "-"): value for name, value in headers.items()})
    assert found is not None
    return found


def test_status_0_is_no_error() -> None:
    assert end_of_call({"grpc-status": "0"}) is None


def test_details_keep_reason_and_facts() -> None:
    packed = pack(FleetError(Reason.QUEUE_FULL, "Full.", facts={"queued": "8"}))
    for encoded in (
        base64.b64encode(packed).decode(),
        base64.b64encode(packed).decode().rstrip("="),
    ):
        error = end(grpc_status="8", grpc_status_details_bin=encoded)
        assert (error.reason, error.message) == (Reason.QUEUE_FULL, "Full.")
        assert error.facts == {"queued": "8"}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("12", Reason.NOT_SUPPORTED),
        ("14", Reason.NEURON_LOST),
        ("1", Reason.CANCELLED),
        ("99", Reason.INTERNAL),
        ("none", Reason.INTERNAL),
        ("9" * 30, Reason.INTERNAL),
    ],
)
def test_a_bare_code_says_what_it_can(code: str, reason: Reason) -> None:
    error = end(grpc_status=code, grpc_message="went%20wrong")

    assert (error.reason, error.message) == (reason, "went wrong")


def test_details_that_cannot_be_read_are_passed_over() -> None:
    assert end(grpc_status="14", grpc_status_details_bin="\N{SNOWMAN}").reason is Reason.NEURON_LOST
    assert end(grpc_status="14", grpc_status_details_bin="AAAA").reason is Reason.NEURON_LOST


def test_an_answer_that_is_no_grpc_tells_its_http_status() -> None:
    assert end_of_call({}) is not None
    assert end(**{":status": "404"}).reason is Reason.NOT_SUPPORTED
    assert end(**{":status": "502"}).reason is Reason.NEURON_LOST
