"""The steps of a placement, as the client that waits for it is told of them."""

from __future__ import annotations

from typing import Protocol

from cortex.v1 import model_pb2
from cortex.v1 import registry_service_pb2 as registry


class PlacementSink(Protocol):
    """Takes the steps of a placement, called back on the event loop. Must not raise."""

    __slots__ = ()

    @property
    def is_committed(self) -> bool:
        """True once the client has the head of its answer: after that no SDK sends it again."""
        ...

    def waiting(self, step: registry.EnsureModelResponse) -> None:
        """The placement has come to this step."""
        ...


def word_step(step: registry.EnsureModelResponse) -> bytes:
    """A step of a placement as one line of ASCII, without a line end."""
    kind = step.WhichOneof("event")
    if kind == "queued":
        words = f"queued, {step.queued.position} before you"
        if step.queued.reason:
            words += f": {step.queued.reason}"
    elif kind == "evicting":
        victims = ", ".join(step.evicting.victim_models)
        words = f"making room on {step.evicting.neuron} ({victims})"
    elif kind == "loading":
        words = f"loading on {step.loading.neuron}{_share(step.loading.progress)}"
    else:
        words = "placed"
    # a line break would end the comment and begin an event of its own
    return " ".join(words.split()).encode("ascii", "replace")


def _share(progress: model_pb2.LoadProgress) -> str:
    if progress.phase == model_pb2.LOAD_PHASE_DOWNLOADING and progress.bytes_total:
        return f", {100 * progress.bytes_done // progress.bytes_total} % downloaded"
    if progress.phase == model_pb2.LOAD_PHASE_WARMING:
        return ", warming up"
    if progress.modules_total:
        return f", {100 * progress.modules_done // progress.modules_total} %"
    if progress.bytes_total:
        return f", {100 * progress.bytes_done // progress.bytes_total} %"
    return ""
