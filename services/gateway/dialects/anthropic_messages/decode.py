"""A messages body into a canonical request."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.dialects.anthropic_messages import toolbox
from services.gateway.dialects.anthropic_messages.blocks import TurnReader
from services.gateway.dialects.anthropic_messages.fields import (
    COUNT,
    MESSAGES,
    CountRequest,
    MessagesRequest,
    OutputFormat,
    PromptFields,
)
from services.gateway.dialects.common import sampling, turns, work_class
from services.gateway.dialects.common.json_body import bad, unsupported
from services.gateway.dialects.common.json_schema import schema_text
from services.gateway.dialects.dialect import DecodedRequest, Head

_EFFORTS: Final[Mapping[str, generation.ReasoningEffort.ValueType]] = MappingProxyType(
    {
        "low": generation.REASONING_EFFORT_LOW,
        "medium": generation.REASONING_EFFORT_MEDIUM,
        "high": generation.REASONING_EFFORT_HIGH,
        "xhigh": generation.REASONING_EFFORT_HIGH,
        "max": generation.REASONING_EFFORT_HIGH,
    }
)


@dataclasses.dataclass(frozen=True, slots=True)
class MessageDetail:
    """What the encoder needs again.

    Attributes:
        shows_thinking: the text of thinking blocks is sent; otherwise only their signatures.
        is_beta: the answer has the fields of the beta API besides.
        edits_context: the request asked for edits of its context. None is ever applied here, and
            the answer says so.
        only_prefills: the request is only to fill the cache (`max_tokens: 0`).
    """

    shows_thinking: bool = True
    is_beta: bool = False
    edits_context: bool = False
    only_prefills: bool = False


def decode(body: bytes, head: Head) -> DecodedRequest:
    """Reads a request.

    Raises:
        FleetError: BAD_REQUEST or UNSUPPORTED_FIELD with the field's path.
    """
    lax = "anthropic-beta" in head.headers
    wire: MessagesRequest = MESSAGES.read(body, lax=lax)
    if wire.top_p == 0:
        raise bad("top_p", "must be above 0.")
    if wire.container is not None:
        raise unsupported("container", "no code is run here, and no skills are kept.")
    request = generation.GenerateRequest(
        request_id=head.request_id,
        sampling=generation.Sampling(
            temperature=wire.temperature, top_p=wire.top_p, top_k=wire.top_k
        ),
        stop=generation.StopRules(
            # Never refused: what does not fit is clamped by the neuron.
            max_tokens=max(wire.max_tokens, 1),
            stop_strings=sampling.stops_of(wire.stop_sequences, "stop_sequences"),
        ),
        constraint=_constraint(wire),
        reasoning=_reasoning(wire, wire.max_tokens),
        work_class=work_class.of_tier(wire.service_tier),
    )
    _fill_chat(wire, request.chat, lax=lax, answers=True)
    constraint_field = ""
    if request.HasField("constraint"):
        constraint_field = (
            "output_format.schema" if wire.output_format else "output_config.format.schema"
        )
    return DecodedRequest(
        model=wire.model,
        stream=bool(wire.stream),
        requests=[request],
        detail=_detail(wire, head),
        constraint_field=constraint_field,
    )


def _detail(wire: MessagesRequest, head: Head) -> MessageDetail:
    return MessageDetail(
        shows_thinking=wire.thinking is None or wire.thinking.display != "omitted",
        is_beta=is_beta(head),
        edits_context=wire.context_management is not None,
        only_prefills=wire.max_tokens == 0,
    )


def is_beta(head: Head) -> bool:
    """True if the request is to the beta API, whose answers have more fields."""
    return head.query.get("beta") == "true" or "anthropic-beta" in head.headers


class DecodedCount(NamedTuple):
    """A request for a count, and whether it asked for edits of the context before it."""

    request: neuron.CountTokensRequest
    edits_context: bool


def decode_count(body: bytes, head: Head) -> DecodedCount:
    """Reads a token count.

    Raises:
        FleetError: BAD_REQUEST or UNSUPPORTED_FIELD with the field's path.
    """
    lax = "anthropic-beta" in head.headers
    wire: CountRequest = COUNT.read(body, lax=lax)
    # Neither is part of the prompt; what is wrong with them is told all the same.
    _constraint(wire)
    _reasoning(wire, max_tokens=1)
    request = neuron.CountTokensRequest(model=wire.model)
    _fill_chat(wire, request.chat, lax=lax, answers=False)
    return DecodedCount(request, wire.context_management is not None)


def _fill_chat(wire: PromptFields, chat: conversation.Chat, *, lax: bool, answers: bool) -> None:
    if not wire.model:
        raise bad("model", "String should have at least 1 character")
    if wire.mcp_servers:
        raise unsupported("mcp_servers", "MCP servers are not called from here.")
    found = TurnReader(lax=lax).read(wire)
    offered = toolbox.tools_of(wire)
    chat.MergeFrom(
        conversation.Chat(
            tools=offered,
            tool_choice=toolbox.choice_of(wire.tool_choice, offered),
            parallel_tool_calls=toolbox.parallel(wire.tool_choice),
            continue_final_message=answers and _is_prefill(found[-1]),
        )
    )
    turns.write(found, chat)


def _is_prefill(last: turns.Turn) -> bool:
    """The API goes on writing where the caller has begun the assistant's turn."""
    if last.role != conversation.ROLE_ASSISTANT or not last.parts:
        return False
    return isinstance(last.parts[-1], turns.Text)


def _constraint(wire: PromptFields) -> generation.OutputConstraint | None:
    config = wire.output_config
    wish: OutputFormat | None = config.format if config else None
    if wish and wire.output_format:
        raise bad("output_format", "the format stands in output_config.format already.")
    path = "output_config.format" if wish else "output_format"
    wish = wish or wire.output_format
    if wish is None or wish.type == "text":
        return None
    if wish.type != "json_schema":
        raise bad(f"{path}.type", "Input should be 'json_schema'")
    schema = schema_text(wish.schema, f"{path}.schema")
    if not schema:
        raise bad(f"{path}.schema", "Field required")
    return generation.OutputConstraint(json_schema=schema)


def _reasoning(wire: PromptFields, max_tokens: int) -> generation.Reasoning:
    effort = _effort(wire)
    thinking = wire.thinking
    wish = generation.Reasoning()
    match thinking.type if thinking else "disabled":
        case "disabled":
            # The API thinks only where it was asked to; effort steers nothing but thinking here.
            wish.enabled = False
            return wish
        case "enabled":
            wish.enabled = True
            if thinking and thinking.budget_tokens:
                wish.budget_tokens = _within(thinking.budget_tokens, max_tokens)
        case "adaptive":
            pass
        case other:
            raise bad("thinking.type", f"{other!r} is none of enabled, disabled, adaptive.")
    wish.effort = effort
    return wish


def _effort(wire: PromptFields) -> generation.ReasoningEffort.ValueType:
    config = wire.output_config
    if config and config.task_budget is not None:
        raise unsupported("output_config.task_budget", "no model here is told of a budget.")
    if config is None or not config.effort:
        return generation.REASONING_EFFORT_UNSPECIFIED
    effort = _EFFORTS.get(config.effort)
    if effort is None:
        raise bad("output_config.effort", f"{config.effort!r} is none of {', '.join(_EFFORTS)}.")
    return effort


def _within(budget: int, max_tokens: int) -> int:
    """A budget that leaves a quarter for the answer: qwen-code asks for as much as it has."""
    return min(budget, max(1, max_tokens - max_tokens // 4))
