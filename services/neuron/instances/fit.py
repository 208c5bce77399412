"""Which engine and which devices a load gets on this host. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.neuron.devices.inventory import CPU
from services.neuron.devices.mig import PREFIX as MIG
from services.neuron.instances import tensor_group
from services.neuron.instances.division import Division, GgufRules, division_of, held, room, spare
from services.neuron.instances.tensor_group import TensorGroup
from services.neuron.supervisor.listener import WorkerKey
from services.neuron.weights.inspect import Weights

# Formats that each engine reads, and whether it runs without a GPU.
_READS: Final = {
    "llamacpp": (frozenset({"gguf", "bert"}), True),
    "exllamav2": (frozenset({"safetensors", "exl2", "gptq"}), False),
}
# Room for what an engine holds besides weights and cache.
_OVERHEAD_BYTES: Final = 64 << 20
_DEFAULT_CONTEXT: Final = 4096
_LEAST_ADVICE_TOKENS: Final = 256
# As many as llama.cpp's engine takes where nobody says and there is room.
_MOST_OPEN_SEQUENCES: Final = 4
_ON_THE_CPU: Final = GgufRules()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """The worker that a load goes to, or why there is none.

    Attributes:
        key: the worker: the engine and the devices that it owns.
        required_bytes: what the load takes, on all of its devices together.
        fits: as far as can be told before; the engine has the last word.
        most_bytes: what the engine may take: more sequences than needed, never more than is free.
        division: of a GGUF model between GPUs and the host; None for other models.
        group: of GPUs that take a part of every layer each; None where layers are whole.
    """

    key: WorkerKey
    required_bytes: int
    fits: bool
    most_bytes: int = 0
    division: Division | None = None
    group: TensorGroup | None = None

    @property
    def shares(self) -> Mapping[str, int]:
        """Bytes by device id, where they were decided on; empty where it goes by what is free."""
        if self.group is not None:
            return self.group.shares
        return self.division.shares if self.division is not None else {}


def place(
    spec: model.LoadSpec,
    weights: Weights,
    *,
    engines: Sequence[str],
    devices: Sequence[model.Device],
    default_engine: str = "",
    gguf: GgufRules = _ON_THE_CPU,
) -> FitResult:
    """The worker that a load goes to.

    1. Engine: the one that the spec names, else the settings' own, else the first that is here and
       reads the files' format.
    2. Devices that the spec names are taken as they are.
    3. A GGUF model is divided between the GPUs that llama.cpp sees and the CPU, see `divide`;
       named GPUs take it with or without the CPU, named CPU takes it alone.
    4. An encoder goes to the CPU.
    5. Otherwise GPUs that are not quarantined: the one with the most room if the model fits there;
       else the fewest, most room first, that hold it together; else all of them, so that the engine
       can say with numbers what is missing.
    6. Instances of a divided GPU (MIG) are in no group: a process can use one of them.
    7. A group of several loses 1/32 of the load on each device, as no layer is cut in two.
    8. Where layers are to be divided themselves, GPUs of one kind, see `tensor_group`; `auto` falls
       back to whole layers.

    Args:
        spec: what was asked for.
        weights: what is to be loaded.
        engines: those that are here.
        devices: those that are here.
        default_engine: used where the spec names none; empty chooses by the files.
        gguf: how GGUF models are divided here.

    Raises:
        FleetError: NOT_SUPPORTED or BAD_REQUEST, no engine here reads the files, or a device that
            was asked for is not here.
    """
    engine = _engine(spec.engine or default_engine, weights.format, engines)
    needed = required_bytes(spec, weights)
    division = group = None
    if spec.parallel == model.PARALLEL_TENSOR or weights.format not in {"gguf", "bert"}:
        group = _tensor_group(spec, weights, devices, needed)
    if group is not None:
        chosen, fits = list(group.shares), group.fits
    elif weights.format == "gguf":
        division = division_of(spec, weights, needed, devices=_known(spec, devices), rules=gguf)
        chosen, fits = list(division.device_ids), division.fits
    else:
        chosen, fits = _devices(spec, engine, devices, needed)
    open_ = _MOST_OPEN_SEQUENCES if weights.format == "gguf" else 1
    wanted = required_bytes(spec, weights, sequences=open_)
    if division is not None and division.shares:
        most = min(wanted, needed + spare(division, devices))
    else:
        most = min(wanted, sum(room(one) for one in devices if one.device_id in chosen))
    key = WorkerKey(engine, tuple(sorted(chosen)), is_divided=group is not None)
    return FitResult(
        key=key,
        required_bytes=needed,
        fits=fits,
        most_bytes=most,
        division=division,
        group=group,
    )


def required_bytes(spec: model.LoadSpec, weights: Weights, *, sequences: int = 1) -> int:
    """Memory that a load will take, estimated from the file and the cache that was asked for.

    Args:
        spec: what was asked for.
        weights: what is to be loaded.
        sequences: how many, where the spec leaves that open.
    """
    tokens = cache_tokens(spec, weights, sequences=sequences)
    width = {model.CACHE_FORMAT_Q8: 17 / 32, model.CACHE_FORMAT_Q6: 0.4, model.CACHE_FORMAT_Q4: 0.3}
    cache = tokens * weights.cache_bytes_per_token * width.get(spec.cache_format, 1.0)
    return weights.bytes + int(cache) + _OVERHEAD_BYTES


def cache_tokens(spec: model.LoadSpec, weights: Weights, *, sequences: int = 1) -> int:
    """Tokens of cache that a load takes; arguments as for `required_bytes`."""
    trained = weights.max_context_tokens
    if weights.format != "gguf":  # llama.cpp takes the whole context where none is asked for
        trained = min(trained, _DEFAULT_CONTEXT)
    context = spec.max_context_tokens or trained
    if weights.format == "gguf" and trained:
        context = min(context, trained)
    tokens = context * (spec.max_sequences or sequences)
    if spec.cache_tokens:
        tokens = min(tokens, spec.cache_tokens) if tokens else spec.cache_tokens
    return tokens


def verdict(placement: FitResult, spec: model.LoadSpec, device: model.Device) -> str:
    """Why a device will not do for a load; empty if it will, alone or in the load's group."""
    if spec.device_ids and device.device_id not in spec.device_ids:
        return "It was not asked for."
    if device.quarantine_reason:
        return f"It is out of use: {device.quarantine_reason}"
    takes_both = placement.division is not None and placement.division.gpu_layers != 0
    if (device.device_id == CPU) != (CPU in placement.key.device_ids) and not takes_both:
        return f"The engine {placement.key.engine} does not load there."
    if placement.fits and device.device_id in placement.key.device_ids:
        return ""
    share = None if placement.group is None else placement.group.shares.get(device.device_id)
    wanted = placement.required_bytes if share is None else share
    if room(device) >= wanted:
        return ""
    free, needed = room(device) >> 20, wanted >> 20
    return f"It has {free} MiB free; {needed} MiB are needed."


def advice(spec: model.LoadSpec, weights: Weights, most_free: int) -> str:
    """The cheapest change that would make a load fit; empty where none would."""
    rest = most_free - weights.bytes - _OVERHEAD_BYTES
    if weights.cache_bytes_per_token and rest > 0:
        tokens = rest // weights.cache_bytes_per_token // (spec.max_sequences or 1)
        if tokens >= _LEAST_ADVICE_TOKENS:
            return f"It would fit with a context of {tokens // 256 * 256} tokens."
    return "It would fit after another model is unloaded." if rest <= 0 else ""


def _engine(wanted: str, weights_format: str, engines: Sequence[str]) -> str:
    able = [name for name, (formats, _) in _READS.items() if weights_format in formats]
    if wanted and wanted not in able:
        raise FleetError(
            Reason.BAD_REQUEST,
            f"The engine {wanted} does not read {weights_format} files.",
            field="spec.engine",
        )
    here = [name for name in ([wanted] if wanted else able) if name in engines]
    if not here:
        raise FleetError(
            Reason.NOT_SUPPORTED,
            f"No engine here reads {weights_format} files (here: {', '.join(engines) or 'none'}).",
            field="spec.engine",
        )
    return here[0]


def _devices(
    spec: model.LoadSpec, engine: str, devices: Sequence[model.Device], needed: int
) -> tuple[list[str], bool]:
    """The devices' ids, and whether the load will fit there."""
    known = _known(spec, devices)
    _, runs_without_gpu = _READS[engine]
    if spec.device_ids:
        named = list(dict.fromkeys(spec.device_ids))
        if len(named) > 1 and any(name.startswith(MIG) for name in named):
            raise FleetError(
                Reason.BAD_REQUEST,
                "A process can use one MIG instance, and no other GPU beside it.",
                field="spec.device_ids",
            )
        return named, _holds([known[name] for name in named], needed)
    if runs_without_gpu:
        return [CPU], CPU in known and _holds([known[CPU]], needed)
    usable = [
        device
        for device in devices
        if device.kind == model.DEVICE_KIND_CUDA and not device.quarantine_reason
    ]
    if not usable:
        raise FleetError(Reason.NOT_SUPPORTED, f"The engine {engine} needs a GPU.")
    # Most room first: so the first group that holds the load is the smallest one.
    usable.sort(key=room, reverse=True)
    whole = [device for device in usable if not device.device_id.startswith(MIG)]
    groups = [usable[:1], *(whole[:count] for count in range(2, len(whole) + 1))]
    for group in groups:
        if _holds(group, needed):
            return [device.device_id for device in group], True
    return [device.device_id for device in groups[-1]], False


def _tensor_group(
    spec: model.LoadSpec, weights: Weights, devices: Sequence[model.Device], needed: int
) -> TensorGroup | None:
    """The GPUs among which a load's layers are divided; None where they stay whole.

    Raises:
        FleetError: dividing was asked for, and is not possible.
    """
    known = _known(spec, devices)
    gpus = [
        known[name]
        for name in dict.fromkeys(spec.device_ids or known)
        if known[name].kind == model.DEVICE_KIND_CUDA
        and not name.startswith(MIG)
        and (spec.device_ids or not known[name].quarantine_reason)
    ]
    if not tensor_group.is_wanted(spec, gpus, needed):
        return None
    try:
        return tensor_group.choose(spec, weights, gpus, needed, base=_OVERHEAD_BYTES)
    except FleetError:
        if spec.parallel == model.PARALLEL_AUTO:
            return None
        raise


def _known(spec: model.LoadSpec, devices: Sequence[model.Device]) -> dict[str, model.Device]:
    known = {device.device_id: device for device in devices}
    unknown = [name for name in spec.device_ids if name not in known]
    if unknown:
        raise FleetError(
            Reason.BAD_REQUEST, f"There is no device {unknown[0]} here.", field="spec.device_ids"
        )
    return known


def _holds(group: Sequence[model.Device], needed: int) -> bool:
    return held(group) >= needed
