"""From values to protobuf: what neurons, gateways and operators are told."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from cortex.v1 import (
    generation_pb2,
    model_pb2,
    neuron_service_pb2,
    operator_service_pb2,
    registry_service_pb2,
)
from services.backplane import protobuf_time
from services.registry.catalogue.profile import AliasRules, RequestValues, SamplingDefaults
from services.registry.fleet.records import (
    Instance,
    InstanceState,
    LoadProgress,
    Member,
    StoredModel,
)
from services.registry.joining.records import OpenToken
from services.registry.placement import progress
from services.registry.placement.neighbours import Neighbour
from services.registry.placement.orders import FollowingLoad, LoadOrder
from services.registry.rpc.decode import CAPABILITIES, PHASES, STATES
from services.registry.scheduler.request import PlacementOutcome

_STATE_VALUES: Final = {
    **{state: value for value, state in STATES.items()},
    InstanceState.UNKNOWN: model_pb2.INSTANCE_STATE_UNSPECIFIED,
}
_VERDICTS: Final = {
    PlacementOutcome.FREE_FIT: operator_service_pb2.PLACEMENT_VERDICT_FREE_FIT,
    PlacementOutcome.EVICT: operator_service_pb2.PLACEMENT_VERDICT_EVICT,
    PlacementOutcome.DRAIN: operator_service_pb2.PLACEMENT_VERDICT_EVICT,
    PlacementOutcome.WAIT: operator_service_pb2.PLACEMENT_VERDICT_WAIT,
    PlacementOutcome.UNAVAILABLE: operator_service_pb2.PLACEMENT_VERDICT_WAIT,
    PlacementOutcome.BLOCKED: operator_service_pb2.PLACEMENT_VERDICT_IMPOSSIBLE,
    PlacementOutcome.IMPOSSIBLE: operator_service_pb2.PLACEMENT_VERDICT_IMPOSSIBLE,
}


def stored_message(value: StoredModel) -> model_pb2.StoredModel:
    """A model's files as gateways are sent them, without their paths on the neuron."""
    message = model_pb2.StoredModel(
        model=value.model,
        bytes=value.size_bytes,
        format=value.format,
        architecture=value.architecture,
        max_context_tokens=value.max_context_tokens,
        capabilities=capabilities(value.capabilities),
        quantization=value.quantization,
        parameter_size=value.parameter_size,
        fingerprint=value.fingerprint,
    )
    if value.modified:
        message.modified_at.CopyFrom(protobuf_time.timestamp(value.modified))
    return message


def neuron_message(member: Member) -> registry_service_pb2.Neuron:
    """A member as watchers see it: the neuron's own report, and what the registry adds."""
    message = registry_service_pb2.Neuron(cordoned=member.is_cordoned, lost=member.is_lost)
    status = member.status
    if isinstance(status, neuron_service_pb2.NeuronStatus):
        message.identity.CopyFrom(status.identity)
        message.report.CopyFrom(status.report)
    else:
        message.identity.name = member.name
        message.identity.incarnation_id = member.identity.incarnation_id
        message.identity.address = member.identity.address
        message.identity.labels.update(member.identity.labels)
        message.identity.engines.extend(member.identity.engines)
    return message


def load_spec(order: LoadOrder | FollowingLoad) -> model_pb2.LoadSpec:
    """What a neuron is told to load: the whole profile, so that no second file is believed."""
    profile, terms = order.profile, order.profile.terms
    spec = model_pb2.LoadSpec(
        model=profile.model,
        source=terms.source,
        engine=terms.engine,
        quant=terms.quant,
        device_ids=order.device_ids,
        chat_template=terms.chat_template,
        config_revision=profile.revision,
        adapters=terms.adapters,
        draft_source=terms.draft_source,
        ngram_draft=terms.ngram_draft,
        sha256=terms.sha256,
        embedding=terms.embedding,
        tool_format=terms.tool_format,
        reasoning_format=terms.reasoning_format,
    )
    if terms.cache_format:
        spec.cache_format = model_pb2.CacheFormat.Value(
            f"CACHE_FORMAT_{terms.cache_format.upper()}"
        )
    spec.default_sampling.CopyFrom(sampling_message(profile.sampling))
    if terms.parallel:
        spec.parallel = model_pb2.Parallel.Value(f"PARALLEL_{terms.parallel.upper()}")
    if terms.max_context_tokens:
        spec.max_context_tokens = terms.max_context_tokens
    if terms.cache_tokens:
        spec.cache_tokens = terms.cache_tokens
    if terms.max_sequences:
        spec.max_sequences = terms.max_sequences
    return spec


def sampling_message(value: SamplingDefaults) -> generation_pb2.Sampling:
    """What requests get where they set nothing; what is None is left unset."""
    told = dataclasses.asdict(value)
    return generation_pb2.Sampling(**{k: v for k, v in told.items() if v is not None})


def alias_rules_message(value: AliasRules) -> registry_service_pb2.AliasRules:
    """What gateways make of the requests to an alias."""
    return registry_service_pb2.AliasRules(
        alias=value.alias,
        system=value.system,
        defaults=_request_values(value.default),
        forced=_request_values(value.force),
        stripped=value.strip,
        fallback=value.fallback,
    )


def _request_values(value: RequestValues) -> registry_service_pb2.RequestValues:
    return registry_service_pb2.RequestValues(
        sampling=sampling_message(value.sampling),
        max_tokens=value.max_tokens,
        reasoning=value.reasoning,
    )


def step_message(step: progress.Step) -> registry_service_pb2.EnsureModelResponse:
    """One step of a wait for a placement."""
    message = registry_service_pb2.EnsureModelResponse()
    match step:
        case progress.Queued(position, eta, reason):
            message.queued.position, message.queued.reason = position, reason
            if eta is not None:
                message.queued.eta.CopyFrom(protobuf_time.duration(max(0.0, eta)))
        case progress.Evicting(neuron, victims, eta):
            message.evicting.neuron = neuron
            message.evicting.victim_models.extend(victims)
            if eta is not None:
                message.evicting.eta.CopyFrom(protobuf_time.duration(max(0.0, eta)))
        case progress.Loading(neuron, how_far, eta):
            message.loading.neuron = neuron
            message.loading.progress.CopyFrom(_progress_message(how_far))
            if eta is not None:
                message.loading.eta.CopyFrom(protobuf_time.duration(max(0.0, eta)))
        case progress.Placed(neuron, address, instance_id, model):
            message.placed.neuron, message.placed.address = neuron, address
            message.placed.instance_id, message.placed.model = instance_id, model
    return message


def _progress_message(value: LoadProgress) -> model_pb2.LoadProgress:
    message = model_pb2.LoadProgress(
        bytes_done=value.bytes_done,
        bytes_total=value.bytes_total,
        modules_done=value.modules_done,
        modules_total=value.modules_total,
    )
    if value.phase:
        message.phase = PHASES[value.phase]
    return message


def verdict(outcome: PlacementOutcome) -> operator_service_pb2.PlacementVerdict.ValueType:
    """A placement decision as `cortex explain` shows it."""
    return _VERDICTS[outcome]


def capabilities(names: Iterable[str]) -> list[model_pb2.Capability.ValueType]:
    """Capabilities by their names."""
    return [CAPABILITIES[name] for name in names]


def instance_message(member: Member, value: Instance) -> model_pb2.Instance:
    """An instance as the neuron reported it, or as it was loaded if that is not reported yet."""
    status = member.status
    if isinstance(status, neuron_service_pb2.NeuronStatus):
        for told in status.report.instances:
            if told.instance_id == value.instance_id:
                return told
    message = model_pb2.Instance(
        instance_id=value.instance_id,
        state=_STATE_VALUES[value.state],
        active_requests=value.active_requests,
        queued_requests=value.queued_requests,
        max_context_tokens=value.max_context_tokens,
    )
    message.spec.model, message.spec.config_revision = value.model, value.config_revision
    for device_id, count in value.memory.items():
        message.memory.add(device_id=device_id, bytes=count)
    return message


def revoked_message(serials: Iterable[str]) -> registry_service_pb2.RevokedCertificates:
    """All certificates that are refused."""
    return registry_service_pb2.RevokedCertificates(serials=serials)


def neighbour(member: Member) -> Neighbour:
    """A member as one that files are fetched from."""
    return Neighbour(member.name, member.identity.address)


def neighbour_message(value: Neighbour) -> model_pb2.Neighbour:
    """A neuron that may have files, as sent to the neuron that needs them."""
    return model_pb2.Neighbour(name=value.name, address=value.address)


def waiting_host(ticket: OpenToken) -> operator_service_pb2.WaitingHost:
    """A host that waits for its approval, or has it."""
    return operator_service_pb2.WaitingHost(
        neuron=ticket.neuron,
        key=ticket.key,
        source=ticket.source,
        since=protobuf_time.timestamp(ticket.since),
        expires_at=protobuf_time.timestamp(ticket.until),
        approved=ticket.is_approved,
    )
