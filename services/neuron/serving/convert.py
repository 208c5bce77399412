"""Between the contract's messages and the engine's values. Decides nothing but defaults."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.backplane.protobuf_time import duration
from services.neuron.engine_api.events import (
    Ended,
    EndReason,
    Prefilled,
    Queued,
    Started,
    TokenLogprob,
)
from services.neuron.engine_api.task import (
    Constraint,
    ConstraintKind,
    SamplingParams,
    StopParams,
    WorkClass,
)

# Field of cortex.v1.Sampling: least value, greatest value, whether the least itself is allowed.
_RANGES = {
    "temperature": (0.0, math.inf, True),
    "top_p": (0.0, 1.0, False),
    "min_p": (0.0, 1.0, True),
    "typical_p": (0.0, 1.0, False),
    "repetition_penalty": (0.0, math.inf, False),
    "frequency_penalty": (-math.inf, math.inf, True),
    "presence_penalty": (-math.inf, math.inf, True),
}
_MOST_ALTERNATIVES = 20
_MOST_STOPS: Final = 64
_LONGEST_STOP: Final = 1024
_FINISH = {
    EndReason.END_OF_TURN: generation.FINISH_REASON_END_OF_TURN,
    EndReason.STOP_STRING: generation.FINISH_REASON_STOP_STRING,
    EndReason.MAX_TOKENS: generation.FINISH_REASON_MAX_TOKENS,
}


# For models whose files give no advice: what llama.cpp's own tools do. No truncation at all would
# be no neutral choice: a small model wanders off within a sentence.
UNADVISED: Final = SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)

_CLASSES: Final = {
    generation.WORK_CLASS_INTERACTIVE: WorkClass.INTERACTIVE,
    generation.WORK_CLASS_BATCH: WorkClass.BATCH,
}


def work_class(asked: generation.WorkClass.ValueType) -> WorkClass:
    """The class of a request as engines know it; DEFAULT where it is unset or not known here."""
    return _CLASSES.get(asked, WorkClass.DEFAULT)


def sampling(asked: generation.Sampling, own: SamplingParams | None) -> SamplingParams:
    """Settled sampling: the given values, then the model's own, then `UNADVISED`.

    Raises:
        FleetError: BAD_REQUEST, a value is out of range.
    """
    settled = own or UNADVISED
    values: dict[str, Any] = {}
    given: Any = asked  # its fields are named as the engine's
    for name in settled.__struct_fields__:
        if name == "logit_bias":
            values[name] = dict(asked.logit_bias) or settled.logit_bias
        elif given.HasField(name):
            values[name] = _checked(name, getattr(given, name))
        else:
            values[name] = getattr(settled, name)
    return SamplingParams(**values)


def stop(rules: generation.StopRules) -> StopParams:
    """The request's stop rules as engines know them.

    Raises:
        FleetError: BAD_REQUEST, they allow nothing, or the stop strings are too many, too long or
            empty.
    """
    if rules.HasField("max_tokens") and rules.max_tokens == 0:
        raise FleetError(
            Reason.BAD_REQUEST, "At least one token must be allowed.", field="stop.max_tokens"
        )
    if len(rules.stop_strings) > _MOST_STOPS:
        told = f"At most {_MOST_STOPS} stop strings are allowed."
        raise FleetError(Reason.BAD_REQUEST, told, field="stop.stop_strings")
    for index, text in enumerate(rules.stop_strings):
        if not 0 < len(text) <= _LONGEST_STOP:
            told = f"A stop string has 1 to {_LONGEST_STOP} characters."
            field = f"stop.stop_strings.{index}"
            raise FleetError(Reason.BAD_REQUEST, told, field=field)
    return StopParams(
        max_tokens=rules.max_tokens if rules.HasField("max_tokens") else None,
        strings=tuple(rules.stop_strings),
        token_ids=tuple(rules.stop_token_ids),
        ignore_eos=rules.ignore_eos,
        min_tokens=rules.min_tokens,
        include_stop_string=rules.include_stop_string,
    )


def constraint(asked: generation.OutputConstraint) -> Constraint | None:
    """The shape that the output must take; None for free text."""
    match asked.WhichOneof("kind"):
        case "json_object":
            return Constraint(ConstraintKind.JSON_OBJECT)
        case "json_schema":
            return Constraint(ConstraintKind.JSON_SCHEMA, asked.json_schema)
        case "regex":
            return Constraint(ConstraintKind.REGEX, asked.regex)
        case "grammar":
            return Constraint(ConstraintKind.LARK, asked.grammar)
        case _:
            return None


def top_logprobs(request: generation.GenerateRequest) -> int | None:
    """How many alternatives to report; None for no log probabilities at all.

    Raises:
        FleetError: BAD_REQUEST, too many.
    """
    if not request.HasField("top_logprobs"):
        return None
    if request.top_logprobs > _MOST_ALTERNATIVES:
        raise FleetError(
            Reason.BAD_REQUEST,
            f"At most {_MOST_ALTERNATIVES} alternatives can be reported.",
            field="top_logprobs",
        )
    return request.top_logprobs


def queued(event: Queued) -> generation.GenerateResponse:
    """The event for the client that its request waits, and at which place."""
    made = generation.GenerationQueued(position=event.position)
    if event.eta_seconds is not None:
        made.eta.CopyFrom(duration(event.eta_seconds))
    return generation.GenerateResponse(queued=made)


def started(
    event: Started, instance_id: str, weights: model.StoredModel | None
) -> generation.GenerateResponse:
    """The event for the client that its request was admitted, and by which instance and files."""
    return generation.GenerateResponse(
        started=generation.GenerationStarted(
            instance_id=instance_id,
            prompt_tokens=event.prompt_tokens,
            cached_prompt_tokens=event.cached_tokens,
            fingerprint="" if weights is None else weights.fingerprint,
        )
    )


def prefilled(event: Prefilled) -> generation.GenerateResponse:
    """The event for the client that says how much of its prompt has been read."""
    return generation.GenerateResponse(
        prefill=generation.PrefillProgress(tokens_done=event.done, tokens_total=event.total)
    )


def text_delta(
    text: str, token_ids: Sequence[int], logprobs: Iterable[TokenLogprob]
) -> generation.TextDelta:
    """The event for the client that brings new text."""
    return generation.TextDelta(
        text=text, token_ids=token_ids, logprobs=[logprob(each) for each in logprobs]
    )


def logprob(value: TokenLogprob) -> generation.TokenLogprob:
    """The log probability of one token and of its most likely alternatives."""
    return generation.TokenLogprob(
        token_id=value.token_id,
        text=value.text,
        logprob=value.logprob,
        alternatives=[logprob(each) for each in value.alternatives],
    )


def finish_reason(reason: EndReason) -> generation.FinishReason.ValueType:
    """The contract's name for why a generation ended."""
    return _FINISH[reason]


def timings(event: Ended) -> generation.Timings:
    """Seconds spent in the queue, reading the prompt, and generating."""
    return generation.Timings(
        queued=duration(event.queued_seconds),
        prefill=duration(event.prefill_seconds),
        decode=duration(event.decode_seconds),
        accepted_draft_tokens=event.accepted_draft_tokens,
    )


def _checked(name: str, value: float) -> float:
    if name in _RANGES:
        least, greatest, least_included = _RANGES[name]
        inside = least <= value <= greatest if least_included else least < value <= greatest
        if not inside or not math.isfinite(value):
            raise FleetError(
                Reason.BAD_REQUEST, f"{value} is out of range.", field=f"sampling.{name}"
            )
    return value
