"""What a client is told while it waits."""

from __future__ import annotations

import pytest

from cortex.v1 import model_pb2
from cortex.v1 import registry_service_pb2 as registry
from services.gateway.streaming.placement_status import word_step

Response = registry.EnsureModelResponse


def loading(**progress: int) -> Response:
    return Response(
        loading=registry.PlacementLoading(
            neuron="n1",
            progress=model_pb2.LoadProgress(**progress),  # type: ignore[arg-type]
        )
    )


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            Response(queued=registry.PlacementQueued(position=2, reason="n1 is loading x")),
            b"queued, 2 before you: n1 is loading x",
        ),
        (
            Response(evicting=registry.PlacementEvicting(neuron="n1", victim_models=["a", "b"])),
            b"making room on n1 (a, b)",
        ),
        (loading(), b"loading on n1"),
        (loading(modules_done=1, modules_total=4), b"loading on n1, 25 %"),
        (loading(bytes_done=1, bytes_total=2), b"loading on n1, 50 %"),
        (
            loading(phase=model_pb2.LOAD_PHASE_DOWNLOADING, bytes_done=1, bytes_total=4),
            b"loading on n1, 25 % downloaded",
        ),
        (loading(phase=model_pb2.LOAD_PHASE_WARMING), b"loading on n1, warming up"),
    ],
)
def test_each_step_has_its_words(step: Response, words: bytes) -> None:
    assert word_step(step) == words


def test_nothing_in_a_reason_can_begin_an_event() -> None:
    step = Response(queued=registry.PlacementQueued(reason="x\n\ndata: {}\r\n"))

    assert b"\n" not in word_step(step)
    assert b"\r" not in word_step(step)
