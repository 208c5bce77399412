import math

import pytest
from google.protobuf import duration_pb2, timestamp_pb2

from services.backplane import protobuf_time


def test_seconds_become_a_duration_and_come_back():
    assert duration_pb2.Duration(seconds=1, nanos=500_000_000) == protobuf_time.duration(1.5)
    assert 1.5 == protobuf_time.seconds(protobuf_time.duration(1.5))
    assert -1.0 == protobuf_time.seconds(protobuf_time.duration(-1))


def test_seconds_since_1970_become_a_timestamp_and_come_back():
    moment = protobuf_time.timestamp(1_700_000_000.0)

    assert timestamp_pb2.Timestamp(seconds=1_700_000_000) == moment
    assert 1_700_000_000.0 == protobuf_time.seconds(moment)


@pytest.mark.parametrize("told", [2**63 - 1, -(2**63)])
def test_what_is_beyond_the_range_can_be_passed_on(told: int):
    lasting = protobuf_time.seconds(duration_pb2.Duration(seconds=told))
    message = timestamp_pb2.Timestamp(seconds=told)
    moment = protobuf_time.nearest(message)

    assert lasting == protobuf_time.seconds(protobuf_time.duration(lasting))
    assert moment == protobuf_time.seconds(protobuf_time.timestamp(moment))
    with pytest.raises(ValueError, match="not valid"):
        protobuf_time.seconds(message)
    assert protobuf_time.duration(math.inf).seconds == 315_576_000_000
    assert protobuf_time.timestamp(math.inf).ToJsonString() == "9999-12-31T23:59:59Z"
