"""What of the devices' time a request is likely to take: reserved before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from google.protobuf import duration_pb2
from msgspec import UNSET, UnsetType

from cortex.v1 import generation_pb2 as generation

_WEIGHT: Final = 0.2
"""Share of the newest answer in the averages."""
_MOST_MODELS: Final = 1024
_UNKNOWN_MILLISECONDS: Final = 1000.0
"""Reserved for a request before any answer was measured."""
_MOST_JOULES: Final = 1e9
_MOST_NANOSECONDS: Final = 2**50
"""Thirteen days: a neuron that tells of more for one answer is not right."""


class _Prices:
    """Average milliseconds of a token that is read, and of one that is made."""

    __slots__ = ("made", "read")

    def __init__(self) -> None:
        self.read: float | None = None
        self.made: float | None = None

    def note(self, finished: generation.GenerationFinished) -> None:
        usage, timings = finished.usage, finished.timings
        read = usage.prompt_tokens - usage.cached_prompt_tokens
        if read > 0:
            self.read = _followed(self.read, _nanoseconds(timings.device_prefill) / 1e6 / read)
        if usage.completion_tokens:
            milliseconds = _nanoseconds(timings.device_decode) / 1e6
            self.made = _followed(self.made, milliseconds / usage.completion_tokens)


class DeviceCosts:
    """Estimates how long devices will work for a request, learning from earlier answers.

    By the names that clients ask for; of a model of which nothing is known, by the average of all.
    """

    def __init__(self) -> None:
        self._of_all = _Prices()
        self._by_model: dict[str, _Prices] = {}

    def note(self, model: str, finished: generation.GenerationFinished) -> None:
        """Learns from an answer that has ended."""
        if not finished.timings.HasField("device_decode"):
            return
        known = self._by_model.get(model)
        if known is None:
            if len(self._by_model) >= _MOST_MODELS:
                del self._by_model[next(iter(self._by_model))]
            known = self._by_model[model] = _Prices()
        known.note(finished)
        self._of_all.note(finished)

    def milliseconds(self, model: str, *, prompt_tokens: int, output_tokens: int) -> int:
        """Estimated milliseconds of devices for a request; at least 1."""
        known = self._by_model.get(model, self._of_all)
        read = self._of_all.read if known.read is None else known.read
        made = self._of_all.made if known.made is None else known.made
        if read is None or made is None:
            return round(_UNKNOWN_MILLISECONDS)
        return max(1, round(prompt_tokens * read + output_tokens * made))


def measured(finished: Sequence[generation.GenerationFinished | None]) -> int | None:
    """Milliseconds of devices that all answers took together; None where one does not say."""
    total = 0
    for one in finished:
        if one is None or not one.timings.HasField("device_decode"):
            return None
        total += _nanoseconds(one.timings.device_prefill)
        total += _nanoseconds(one.timings.device_decode)
    return total // 1_000_000


def joules(finished: Sequence[generation.GenerationFinished | None]) -> float | UnsetType:
    """Energy that all answers took together; UNSET where one does not say, or what cannot be."""
    total = 0.0
    for one in finished:
        if one is None or not one.timings.HasField("joules"):
            return UNSET
        total += one.timings.joules
    return round(total, 3) if 0 <= total <= _MOST_JOULES else UNSET


def _nanoseconds(told: duration_pb2.Duration) -> int:
    """What a neuron has told, within bounds.

    Time below 0 would let its principal use more than its budget, and what is beyond 64 bits could
    not be told to the registry, nor anything else with it.
    """
    return min(max(told.ToNanoseconds(), 0), _MOST_NANOSECONDS)


def _followed(before: float | None, newest: float) -> float:
    return newest if before is None else before + _WEIGHT * (newest - before)
