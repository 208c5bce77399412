"""Which GPUs take a model together by tensor parallelism, a part of every layer on each. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.neuron.instances.division import room
from services.neuron.weights.inspect import Weights

_FIELD: Final = "spec.parallel"
_OTHERWISE: Final = 'use parallel = "layers"'
_ENGINE: Final = "exllamav2"
_FEWEST: Final = 2


@dataclasses.dataclass(frozen=True, slots=True)
class TensorGroup:
    """GPUs that take a model together.

    Attributes:
        shares: bytes by device id, the same on each.
        fits: as far as can be told before.
    """

    shares: Mapping[str, int]
    fits: bool


def is_wanted(spec: model.LoadSpec, devices: Sequence[model.Device], needed: int) -> bool:
    """Whether a load's layers are to be divided, if they can be; by one GPU nothing is.

    Args:
        spec: what was asked for; `auto` is one GPU if that holds the model.
        devices: GPUs that it may go to.
        needed: bytes that it takes in all.
    """
    if spec.parallel == model.PARALLEL_AUTO:
        is_one = len(devices) == 1 or not spec.device_ids
        return not (is_one and any(room(device) >= needed for device in devices))
    return spec.parallel == model.PARALLEL_TENSOR


def choose(
    spec: model.LoadSpec, weights: Weights, gpus: Sequence[model.Device], needed: int, *, base: int
) -> TensorGroup:
    """The GPUs of a load whose layers are divided.

    1. Named GPUs are taken as they are: two or more, of one kind.
    2. Otherwise the fewest of one kind, two or more, that divide the model and hold it together;
       of several such groups the one with the most room.
    3. If none holds it, the largest of those that divide it, so that the engine can say with
       numbers what is missing.

    Args:
        spec: what was asked for.
        weights: of the model.
        gpus: named, or all that are in use.
        needed: bytes that it takes in all.
        base: bytes of these that each GPU takes, whatever its share.

    Raises:
        FleetError: NOT_SUPPORTED, the model or the GPUs do not allow it; the message names the
            setting.
    """
    _check(spec, weights)
    groups = list(_groups(spec, gpus))
    if not groups:
        raise _refused(_why_no_group(spec, gpus))
    possible = [group for group in groups if not weights.tensor_shape.objection(len(group))]
    if not possible:
        raise _refused(weights.tensor_shape.objection(len(groups[0])))
    possible.sort(key=lambda group: (len(group), -min(map(room, group))))
    for group in possible:
        share = base + -(-(needed - base) // len(group))
        if min(map(room, group)) >= share:
            return TensorGroup({gpu.device_id: share for gpu in group}, fits=True)
    group = possible[-1]
    share = base + -(-(needed - base) // len(group))
    return TensorGroup({gpu.device_id: share for gpu in group}, fits=False)


def _check(spec: model.LoadSpec, weights: Weights) -> None:
    if weights.format in {"gguf", "bert"}:
        raise _refused(f"Only {_ENGINE} divides layers, and it reads no {weights.format} files.")
    for name, is_set in (("draft", spec.draft_source), ("adapters", spec.adapters)):
        if is_set:
            raise _refused(f"A model with {name} cannot be divided.")


def _groups(spec: model.LoadSpec, gpus: Sequence[model.Device]) -> Iterator[Sequence[model.Device]]:
    """GPUs of one kind, two or more; with those that have the most room first."""
    kinds: dict[tuple[str, int], list[model.Device]] = {}
    for gpu in gpus:
        kinds.setdefault((gpu.name, gpu.memory_total_bytes), []).append(gpu)
    if spec.device_ids:
        if len(kinds) == 1 and len(gpus) >= _FEWEST:
            yield gpus
        return
    for alike in kinds.values():
        alike.sort(key=room, reverse=True)
        for count in range(_FEWEST, len(alike) + 1):
            yield alike[:count]


def _why_no_group(spec: model.LoadSpec, gpus: Sequence[model.Device]) -> str:
    if len(gpus) < _FEWEST:
        named = "named" if spec.device_ids else "in use here"
        return f"It takes two GPUs or more, and {len(gpus)} is {named}."
    kinds = sorted({f"{gpu.name} ({gpu.memory_total_bytes >> 20} MiB)" for gpu in gpus})
    return f"It takes GPUs of one kind, and these are {', '.join(kinds)}."


def _refused(why: str) -> FleetError:
    told = f'parallel = "tensor" is not possible: {why} Otherwise {_OTHERWISE}.'
    return FleetError(Reason.NOT_SUPPORTED, told, field=_FIELD)
