"""Seconds and protobuf durations: one way to convert each into the other."""

from __future__ import annotations

from google.protobuf import duration_pb2


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as a protobuf duration."""
    made = duration_pb2.Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made


def seconds(message: duration_pb2.Duration) -> float:
    """A Duration as seconds."""
    return message.ToNanoseconds() / 1e9
