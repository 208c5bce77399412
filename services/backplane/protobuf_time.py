"""Seconds and protobuf's times: one way to convert each into the other."""

from __future__ import annotations

from google.protobuf import duration_pb2, timestamp_pb2


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as a protobuf duration."""
    made = duration_pb2.Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made


def timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    """Seconds since 1970 as a protobuf timestamp."""
    made = timestamp_pb2.Timestamp()
    made.FromNanoseconds(round(seconds * 1e9))
    return made


def seconds(message: duration_pb2.Duration | timestamp_pb2.Timestamp) -> float:
    """A duration in seconds, or a timestamp in seconds since 1970."""
    return message.ToNanoseconds() / 1e9
