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
