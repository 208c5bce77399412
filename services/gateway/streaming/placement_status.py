"""What a client waits for while its model is being placed, in a few words."""

from __future__ import annotations

from cortex.v1 import model_pb2
from cortex.v1 import registry_service_pb2 as registry


def word_step(step: registry.EnsureModelResponse) -> bytes:
    """One line of ASCII, without a line end."""
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
