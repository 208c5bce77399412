"""Sampling and stop fields of the OpenAI-like dialects, and their canonical form.

Bounds are those of the OpenAI API reference; the local fields (`min_p`, `top_k`, …) follow vLLM and
llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.common.json_body import bad

_UINT32: Final = 2**32 - 1
# Each choice has a copy of the prompt.
_MOST_COPIED_BYTES: Final = 256 << 20
_MAX_STOPS: Final = 16
_LONGEST_STOP: Final = 1024

Count: TypeAlias = Annotated[int, Meta(ge=1, le=_UINT32)]
Temperature: TypeAlias = Annotated[float, Meta(ge=0, le=2)]
Probability: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]

# Sampling fields of other servers, with the values at which they do nothing.
UNKNOWN_SAMPLERS: Final[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
    {
        "mirostat": (0,),
        "mirostat_tau": (),
        "mirostat_eta": (),
        "mirostat_mode": (0,),
        "tfs": (1,),
        "tfs_z": (1,),
        "top_a": (0,),
        "top_n_sigma": (-1, 0),
        "nsigma": (0,),
        "epsilon_cutoff": (0,),
        "eta_cutoff": (0,),
        "dry_multiplier": (0,),
        "dry_base": (),
        "dry_allowed_length": (),
        "dry_penalty_last_n": (),
        "dry_sequence_breakers": (),
        "xtc_probability": (0,),
        "xtc_threshold": (),
        "dynatemp_range": (0,),
        "dynatemp_exponent": (),
        "smoothing_factor": (0,),
        "smoothing_curve": (),
        "penalty_alpha": (0,),
        "no_repeat_ngram_size": (0,),
        "encoder_repetition_penalty": (1,),
        "length_penalty": (1,),
        "use_beam_search": (False,),
        "num_beams": (1,),
        "early_stopping": (False,),
        "samplers": (),
        "sampler_seed": (),
        "logits_processors": (),
        "bad_words": ([],),
        "allowed_token_ids": ([],),
        "banned_strings": ([],),
        "repeat_last_n": (),
        "penalty_range": (),
        "penalty_decay": (),
        "temperature_last": (False,),
        "adaptive_target": (-1,),
        "adaptive_decay": (),
    }
)

# Fields that have one name and one meaning here and there.
_COPIED: Final = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
)


class SamplingFields(msgspec.Struct, kw_only=True):
    """Fields that every OpenAI-shaped request may carry."""

    temperature: Temperature | None = None
    top_p: Probability | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: int | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    # Local servers' fields.
    top_k: Annotated[int, Meta(ge=-1, le=2**31)] | None = None
    min_p: Probability | None = None
    typical_p: Probability | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=_UINT32)] | None = None
    stop_token_ids: list[Annotated[int, Meta(ge=0, le=_UINT32)]] | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None


def fill_sampling(fields: SamplingFields, sampling: generation.Sampling) -> None:
    """Fills the canonical message in; fields that were not sent stay unset.

    In place, because protobuf copies a message that is passed to the constructor of another.

    Raises:
        FleetError: BAD_REQUEST with the name of the field.
    """
    for name in _COPIED:
        value = getattr(fields, name)
        if value is not None:
            setattr(sampling, name, value)
    if fields.top_p == 0:
        raise bad("top_p", "must be above 0.")
    if fields.typical_p == 0:
        raise bad("typical_p", "must be above 0.")
    if fields.top_k is not None:
        sampling.top_k = max(fields.top_k, 0)
    if fields.repeat_penalty is not None and fields.repetition_penalty is None:
        sampling.repetition_penalty = fields.repeat_penalty
    seed = seed_of(fields.seed)
    if seed is not None:
        sampling.seed = seed
    if fields.logit_bias:
        sampling.logit_bias.update(_bias(fields.logit_bias))


def seed_of(seed: int | None) -> int | None:
    """A seed in 64 bits; -1 asks for a random one, as in llama.cpp."""
    return None if seed is None or seed == -1 else seed & (2**64 - 1)


def _bias(bias: Mapping[str, float]) -> dict[int, float]:
    found: dict[int, float] = {}
    for token, value in bias.items():
        if not (token.isascii() and token.isdigit()) or int(token) > _UINT32:
            raise bad(f"logit_bias.{token}", "the key must be a token id.")
        found[int(token)] = value
    return found


def stops_of(stop: str | Sequence[str] | None, path: str = "stop") -> Sequence[str]:
    """Stop strings as a list, none of them empty or too long."""
    if stop is None:
        return ()
    stops = [stop] if isinstance(stop, str) else stop
    if len(stops) > _MAX_STOPS:
        raise bad(path, f"holds {len(stops)} strings; at most {_MAX_STOPS} are allowed.")
    for index, one in enumerate(stops):
        if not one:
            raise bad(path if isinstance(stop, str) else f"{path}.{index}", "must not be empty.")
        if len(one) > _LONGEST_STOP:
            told = f"has {len(one)} characters; at most {_LONGEST_STOP} are allowed."
            raise bad(path if isinstance(stop, str) else f"{path}.{index}", told)
    return stops


def fill_stop(
    fields: SamplingFields,
    rules: generation.StopRules,
    *,
    stop: str | Sequence[str] | None,
    max_tokens: int | None,
) -> None:
    """Fills the canonical stop rules in; fields that were not sent stay unset."""
    if max_tokens is not None:
        rules.max_tokens = max_tokens
    if stop is not None:
        rules.stop_strings.extend(stops_of(stop))
    if fields.stop_token_ids:
        rules.stop_token_ids.extend(fields.stop_token_ids)
    if fields.ignore_eos:
        rules.ignore_eos = True
    if fields.min_tokens is not None:
        rules.min_tokens = fields.min_tokens
    if fields.include_stop_str_in_output:
        rules.include_stop_string = True


def choices(request: generation.GenerateRequest, count: int) -> list[generation.GenerateRequest]:
    """One request per choice; with a seed each choice gets its own, so that they differ.

    Raises:
        FleetError: BAD_REQUEST: all of them together would be too large.
    """
    if count > 1 and request.ByteSize() * count > _MOST_COPIED_BYTES:
        raise bad("n", f"{count} choices of a prompt of this size are too many at once.")
    requests = [request]
    for index in range(1, count):
        other = generation.GenerateRequest()
        other.CopyFrom(request)
        if request.sampling.HasField("seed"):
            other.sampling.seed = (request.sampling.seed + index) & (2**64 - 1)
        requests.append(other)
    return requests
