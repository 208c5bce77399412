"""A legacy completion body into canonical requests, one per prompt and choice.

Source: OpenAI API reference, completions/create; defaults (16 tokens) are the API's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Final

from msgspec import Meta

from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.common import sampling, work_class
from services.gateway.dialects.common.json_body import BodyReader, FieldRules, bad, unsupported
from services.gateway.dialects.common.sampling import UNKNOWN_SAMPLERS, SamplingFields
from services.gateway.dialects.common.token_inputs import texts_or_tokens
from services.gateway.dialects.dialect import DecodedRequest, Head
from services.gateway.dialects.openai_chat import wishes
from services.gateway.dialects.openai_chat.fields import MAX_CHOICES, ResponseFormat, StreamOptions

_DEFAULT_MAX_TOKENS: Final = 16
_UINT32: Final = 2**32 - 1


class CompletionRequest(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """The whole body."""

    model: str
    prompt: str | list[Any]
    suffix: str | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=_UINT32)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    best_of: Annotated[int, Meta(ge=1)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    stop: str | list[str] | None = None
    response_format: ResponseFormat | None = None
    service_tier: str | None = None


READER: Final = BodyReader(
    CompletionRequest,
    FieldRules(
        ignored=frozenset(
            {
                "user", "metadata", "cache_prompt", "skip_special_tokens", "add_special_tokens",
                "spaces_between_special_tokens", "priority", "request_id", "return_token_ids",
                "prompt_cache_key", "safety_identifier", "store", "keep_alive",
            }
        ),
        refused=UNKNOWN_SAMPLERS,
    ),
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class CompletionDetail:
    """What the encoder needs again.

    Attributes:
        include_usage: the client wants the usage in a chunk of its own.
        logprobs: log probabilities were asked for.
        echo: the prompt is part of the answer.
        only_echoes: nothing else is: no token was wanted.
        prompts: the text of each choice's prompt; None for one in token ids.
        choices_per_prompt: `n`.
    """

    include_usage: bool = False
    logprobs: bool = False
    echo: bool = False
    only_echoes: bool = False
    prompts: Sequence[str | None] = ()
    choices_per_prompt: int = 1


def decode(body: bytes, head: Head) -> DecodedRequest:
    """Reads a request.

    Raises:
        FleetError: BAD_REQUEST or UNSUPPORTED_FIELD with the field's path.
    """
    wire: CompletionRequest = READER.read(body)
    _refuse_what_nobody_does(wire)
    count = wire.n or 1
    requests: list[generation.GenerateRequest] = []
    prompts: list[str | None] = []
    for prompt in texts_or_tokens(wire.prompt, "prompt"):
        requests += sampling.choices(_request(wire, head, prompt), count)
        prompts += [prompt if isinstance(prompt, str) else None] * count
    options = wire.stream_options
    detail = CompletionDetail(
        include_usage=bool(options and options.include_usage),
        logprobs=wire.logprobs is not None,
        echo=bool(wire.echo),
        only_echoes=wire.max_tokens == 0,
        prompts=prompts,
        choices_per_prompt=count,
    )
    return DecodedRequest(
        model=wire.model,
        stream=bool(wire.stream),
        requests=requests,
        detail=detail,
        constraint_field=wishes.schema_field(wish) if (wish := wire.response_format) else "",
    )


def _request(
    wire: CompletionRequest, head: Head, prompt: str | list[int]
) -> generation.GenerateRequest:
    # The text of token ids is known by their log probabilities alone.
    is_read_back = bool(wire.echo) and (wire.logprobs is not None or not isinstance(prompt, str))
    most = _DEFAULT_MAX_TOKENS if wire.max_tokens is None else wire.max_tokens
    request = generation.GenerateRequest(
        request_id=head.request_id,
        top_logprobs=0 if is_read_back and wire.logprobs is None else wire.logprobs,
        echo_prompt=is_read_back,
        work_class=work_class.of_tier(wire.service_tier),
    )
    sampling.fill_sampling(wire, request.sampling)
    # An echo alone costs one token, which is not told.
    sampling.fill_stop(wire, request.stop, stop=wire.stop, max_tokens=max(most, 1))
    if isinstance(prompt, str):
        request.text = prompt
    else:
        request.token_ids.ids.extend(prompt)
    if wire.response_format is not None:
        constraint = wishes.response_format(wire.response_format)
        if constraint is not None:
            request.constraint.CopyFrom(constraint)
    return request


def _refuse_what_nobody_does(wire: CompletionRequest) -> None:
    if not wire.model:
        raise bad("model", "must not be empty.")
    if wire.suffix:
        raise unsupported("suffix", "text cannot be inserted before a suffix here.")
    if wire.best_of is not None and wire.best_of != (wire.n or 1):
        raise unsupported("best_of", "must be equal to n: every choice is sent.")
    if wire.max_tokens == 0 and not wire.echo:
        raise bad("max_tokens", "must be at least 1 unless echo is set.")
