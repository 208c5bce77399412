"""Seconds and protobuf's times: one way to convert each into the other.

What is made is within its type's range: the wire carries any number, and a duration that cannot be
written again must not end what only passes it on.
"""

from __future__ import annotations

from typing import Final

from google.protobuf import duration_pb2, timestamp_pb2

# The ranges that protobuf's types document: 10,000 years either way; the years 1 to 9999.
_DURATION_SECONDS: Final = 315_576_000_000
_FIRST_SECOND: Final = -62_135_596_800
_LAST_SECOND: Final = 253_402_300_799


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as a protobuf duration."""
    made = duration_pb2.Duration()
    made.FromNanoseconds(_nanoseconds(seconds, -_DURATION_SECONDS, _DURATION_SECONDS))
    return made


def timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    """Seconds since 1970 as a protobuf timestamp."""
    made = timestamp_pb2.Timestamp()
    made.FromNanoseconds(_nanoseconds(seconds, _FIRST_SECOND, _LAST_SECOND))
    return made


def seconds(message: duration_pb2.Duration | timestamp_pb2.Timestamp) -> float:
    """A duration in seconds, or a timestamp in seconds since 1970.

    Raises:
        ValueError: a timestamp is beyond its range, and so no moment that anybody has meant.
    """
    told = message.ToNanoseconds() / 1e9
    if isinstance(message, duration_pb2.Duration):
        return min(max(told, -_DURATION_SECONDS), _DURATION_SECONDS)
    return told


def nearest(message: timestamp_pb2.Timestamp) -> float:
    """Seconds since 1970, to be shown: of what is no moment the nearest that is one."""
    told = (message.seconds * 1_000_000_000 + message.nanos) / 1e9
    return min(max(told, _FIRST_SECOND), _LAST_SECOND)


def _nanoseconds(seconds: float, least: int, most: int) -> int:
    return round(min(max(seconds * 1e9, least * 1_000_000_000), most * 1_000_000_000))
