"""An explanation of placement as a protobuf message."""

from __future__ import annotations

from cortex.v1 import operator_service_pb2 as pb
from services.backplane import protobuf_time
from services.backplane.units import format_bytes
from services.registry.control.explanation import Explanation
from services.registry.rpc import encode
from services.registry.scheduler.request import PLACEABLE, PlacementCandidate, PlacementOutcome

_OPEN = PLACEABLE | {PlacementOutcome.WAIT}


def message(explanation: Explanation) -> pb.ExplainPlacementResponse:
    """Every candidate in order of preference, and the verdict in a sentence."""
    decision = explanation.decision
    verdict: pb.PlacementVerdict.ValueType = encode.verdict(decision.outcome)
    if explanation.loaded_on:
        verdict = pb.PLACEMENT_VERDICT_ALREADY_LOADED
    return pb.ExplainPlacementResponse(
        model=explanation.profile.model,
        verdict=verdict,
        candidates=[_candidate(c) for c in decision.candidates],
        summary=summary(explanation),
        required_bytes=explanation.required_bytes,
        footprint_source=explanation.footprint_source,
    )


def summary(explanation: Explanation) -> str:
    """What would happen, in a sentence for people."""
    model, decision = explanation.profile.model, explanation.decision
    best = decision.best
    if explanation.loaded_on:
        return f"{model} is loaded on {', '.join(explanation.loaded_on)}; requests go there."
    if best is None:
        return f"{model} can go nowhere: no neuron is attached."
    need = (
        format_bytes(explanation.required_bytes) if explanation.required_bytes else "unknown size"
    )
    about = f"{model} ({need}, {explanation.footprint_source})"
    match decision.outcome:
        case PlacementOutcome.FREE_FIT:
            return f"{about} would be loaded on {best.neuron}: {best.reason}."
        case PlacementOutcome.EVICT | PlacementOutcome.DRAIN:
            return f"{about} would be loaded on {best.neuron}: {best.reason}."
        case PlacementOutcome.WAIT:
            return f"{about} would wait. {best.neuron}: {best.reason}."
        case PlacementOutcome.UNAVAILABLE:
            return f"{about} would wait for a neuron to take it. {best.neuron}: {best.reason}."
        case PlacementOutcome.BLOCKED:
            return f"{about} would be refused for now. {best.neuron}: {best.reason}."
        case PlacementOutcome.IMPOSSIBLE:
            return f"{about} can run on no neuron of this fleet. {best.neuron}: {best.reason}."


def _candidate(candidate: PlacementCandidate) -> pb.PlacementCandidate:
    found = pb.PlacementCandidate(
        neuron=candidate.neuron,
        feasible=candidate.outcome in _OPEN,
        reason=candidate.reason,
        device_ids=candidate.device_ids,
        free_bytes=candidate.free_bytes,
        evicted_models=[v.model for v in candidate.victims],
    )
    if candidate.predicted_seconds:
        found.predicted.CopyFrom(protobuf_time.duration(candidate.predicted_seconds))
    return found
