import grpc
import pytest
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.backplane.errors import FleetError, Reason
from services.backplane.rpc import status

errors = st.builds(
    FleetError,
    reason=st.sampled_from(Reason),
    message=st.text(min_size=1),
    field=st.none() | st.text(min_size=1),
    retry_after_seconds=st.none() | st.integers(0, 10**6).map(lambda ms: ms / 1000),
    facts=st.dictionaries(st.text(min_size=1), st.text()),
)


@given(errors)
def test_an_error_survives_the_wire(error):
    back = status.unpack(status.pack(error))

    assert error.reason is back.reason
    assert error.message == back.message
    assert error.field == back.field
    assert error.retry_after_seconds == back.retry_after_seconds
    assert error.facts == back.facts


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.value)
def test_the_status_has_the_code_of_the_table(reason):
    assert reason.row.grpc.value[0] == status.to_status(FleetError(reason, "x")).code


def test_a_foreign_status_is_read_by_its_code():
    foreign = status_pb2.Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message="no")

    error = status.from_status(foreign)

    assert (Reason.BAD_REQUEST, "no") == (error.reason, error.message)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, Reason.REGISTRY_UNAVAILABLE),
        (grpc.StatusCode.INTERNAL, Reason.REGISTRY_UNAVAILABLE),
        (grpc.StatusCode.PERMISSION_DENIED, Reason.FORBIDDEN),
        (grpc.StatusCode.UNKNOWN, Reason.INTERNAL),
    ],
)
def test_what_grpc_itself_says_of_a_connection_is_a_lost_one(code, reason):
    nothing = grpc.aio.Metadata()
    error = grpc.aio.AioRpcError(code, nothing, nothing, details="Internal error from Core")

    read = status.from_rpc_error(error, unavailable=Reason.REGISTRY_UNAVAILABLE)

    assert (reason, "Internal error from Core") == (read.reason, read.message)


def test_a_foreign_code_that_means_nothing_to_us_is_internal():
    assert Reason.INTERNAL is status.from_status(status_pb2.Status(code=15)).reason
