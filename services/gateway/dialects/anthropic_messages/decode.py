"""A messages body into a canonical request."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.dialects import sampling
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
from services.gateway.dialects.dialect import Ask, Head
from services.gateway.dialects.reading import bad, text_of, unsupported

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
class Detail:
    """What the encoder needs again.

    Attributes:
        shows_thinking: thoughts are told; otherwise only their signatures.
    """

    shows_thinking: bool = True


def decode(body: bytes, head: Head) -> Ask:
    """Reads a request.

    Raises:
        FleetError: BAD_REQUEST or UNSUPPORTED_FIELD with the field's path.
    """
    lax = "anthropic-beta" in head.headers
    wire: MessagesRequest = MESSAGES.read(body, lax=lax)
    if wire.top_p == 0:
        raise bad("top_p", "must be above 0.")
    request = generation.GenerateRequest(
        request_id=head.request_id,
        chat=_chat(wire, lax=lax, answers=True),
        sampling=generation.Sampling(
            temperature=wire.temperature, top_p=wire.top_p, top_k=wire.top_k
        ),
        stop=generation.StopRules(
            # Never refused: what does not fit is clamped by the neuron.
            max_tokens=wire.max_tokens,
            stop_strings=sampling.stops_of(wire.stop_sequences, "stop_sequences"),
        ),
        constraint=_constraint(wire),
        reasoning=_reasoning(wire),
        work_class=generation.WORK_CLASS_INTERACTIVE,
    )
    shown = wire.thinking is None or wire.thinking.display != "omitted"
    return Ask(model=wire.model, stream=bool(wire.stream), requests=[request], detail=Detail(shown))


def decode_count(body: bytes, head: Head) -> neuron.CountTokensRequest:
    """Reads a token count.

    Raises:
        FleetError: BAD_REQUEST or UNSUPPORTED_FIELD with the field's path.
    """
    lax = "anthropic-beta" in head.headers
    wire: CountRequest = COUNT.read(body, lax=lax)
    return neuron.CountTokensRequest(model=wire.model, chat=_chat(wire, lax=lax, answers=False))


def _chat(wire: PromptFields, *, lax: bool, answers: bool) -> conversation.Chat:
    if not wire.model:
        raise bad("model", "String should have at least 1 character")
    if wire.mcp_servers:
        raise unsupported("mcp_servers", "MCP servers are not called from here.")
    messages = TurnReader(lax=lax).read(wire)
    offered = toolbox.tools_of(wire)
    return conversation.Chat(
        messages=messages,
        tools=offered,
        tool_choice=toolbox.choice_of(wire.tool_choice, offered),
        parallel_tool_calls=toolbox.parallel(wire.tool_choice),
        continue_final_message=answers and _is_prefill(messages[-1]),
    )


def _is_prefill(last: conversation.Message) -> bool:
    """The API goes on writing where the caller has begun the assistant's turn."""
    if last.role != conversation.ROLE_ASSISTANT or not last.parts:
        return False
    return last.parts[-1].WhichOneof("kind") == "text"


def _constraint(wire: PromptFields) -> generation.OutputConstraint | None:
    config = wire.output_config
    wish: OutputFormat | None = config.format if config else None
    path = "output_config.format" if wish else "output_format"
    wish = wish or wire.output_format
    if wish is None or wish.type == "text":
        return None
    if wish.type != "json_schema":
        raise bad(f"{path}.type", "Input should be 'json_schema'")
    schema = text_of(wish.schema, f"{path}.schema")
    if not schema:
        raise bad(f"{path}.schema", "Field required")
    return generation.OutputConstraint(json_schema=schema)


def _reasoning(wire: MessagesRequest) -> generation.Reasoning:
    thinking, config = wire.thinking, wire.output_config
    wish = generation.Reasoning()
    match thinking.type if thinking else "disabled":
        case "disabled":
            # The API thinks only where it was asked to.
            wish.enabled = False
            return wish
        case "enabled":
            wish.enabled = True
            if thinking and thinking.budget_tokens:
                wish.budget_tokens = _within(thinking.budget_tokens, wire.max_tokens)
        case "adaptive":
            pass
        case other:
            raise bad("thinking.type", f"{other!r} is none of enabled, disabled, adaptive.")
    if config and config.effort:
        effort = _EFFORTS.get(config.effort)
        if effort is None:
            raise bad(
                "output_config.effort", f"{config.effort!r} is none of {', '.join(_EFFORTS)}."
            )
        wish.effort = effort
    return wish


def _within(budget: int, max_tokens: int) -> int:
    """A budget that leaves a quarter for the answer: qwen-code asks for as much as it has."""
    return min(budget, max(1, max_tokens - max_tokens // 4))
