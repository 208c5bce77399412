"""A chat completion body into a canonical request."""

from __future__ import annotations

import msgspec

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.common import sampling, work_class
from services.gateway.dialects.common.json_body import bad, encode_text, unsupported
from services.gateway.dialects.dialect import DecodedRequest, Head
from services.gateway.dialects.openai_chat import messages, wishes
from services.gateway.dialects.openai_chat.fields import READER, ChatRequest


class ChatDetail(msgspec.Struct, frozen=True):
    """What the encoder needs again.

    Attributes:
        include_usage: the client wants the usage in a chunk of its own.
        logprobs: log probabilities were asked for.
        old_functions: calls are told in the old `function_call` form.
    """

    include_usage: bool = False
    logprobs: bool = False
    old_functions: bool = False


def decode(body: bytes, head: Head) -> DecodedRequest:
    """Reads a request.

    Raises:
        FleetError: BAD_REQUEST or UNSUPPORTED_FIELD with the field's path.
    """
    wire: ChatRequest = READER.read(body)
    _refuse_what_nobody_does(wire)
    constraint, constraint_field = wishes.constraint_of(wire)
    request = generation.GenerateRequest(
        request_id=head.request_id,
        constraint=constraint,
        reasoning=wishes.reasoning_of(wire),
        top_logprobs=_top_logprobs(wire),
        work_class=work_class.of_tier(wire.service_tier),
    )
    _fill_chat(wire, request.chat)
    sampling.fill_sampling(wire, request.sampling)
    sampling.fill_stop(
        wire,
        request.stop,
        stop=wire.stop,
        max_tokens=wire.max_completion_tokens or wire.max_tokens,
    )
    options = wire.stream_options
    detail = ChatDetail(
        include_usage=bool(options and options.include_usage),
        logprobs=bool(wire.logprobs),
        old_functions=wire.functions is not None and wire.tools is None,
    )
    requests = sampling.choices(request, wire.n or 1)
    return DecodedRequest(
        model=wire.model,
        stream=bool(wire.stream),
        requests=requests,
        detail=detail,
        constraint_field=constraint_field,
    )


def _fill_chat(wire: ChatRequest, chat: conversation.Chat) -> None:
    messages.fill_turns(wire.messages, chat)
    offered, choice = wishes.choose(wire, wishes.tools_of(wire))
    if offered:
        chat.tools.extend(offered)
    if choice is not None:
        chat.tool_choice.CopyFrom(choice)
    if wire.parallel_tool_calls is not None:
        chat.parallel_tool_calls = wire.parallel_tool_calls
    if wire.chat_template_kwargs:
        chat.template_variables_json = encode_text(wire.chat_template_kwargs)
    if _continues(wire):
        chat.continue_final_message = True


def _continues(wire: ChatRequest) -> bool:
    last = wire.messages[-1]
    wanted = bool(wire.continue_final_message or last.prefix)
    if wanted and last.role != "assistant":
        raise bad("continue_final_message", "the last message is not the assistant's.")
    return wanted


def _top_logprobs(wire: ChatRequest) -> int | None:
    if wire.logprobs:
        return wire.top_logprobs or 0
    if wire.top_logprobs:
        raise bad("top_logprobs", "logprobs must be true where this is set.")
    return None


def _refuse_what_nobody_does(wire: ChatRequest) -> None:
    if wire.audio is not None or "audio" in (wire.modalities or ()):
        raise unsupported("modalities", "models here answer in text only.")
    if wire.web_search_options is not None:
        raise unsupported("web_search_options", "there is no web search here.")
    if not wire.model:
        raise bad("model", "must not be empty.")
