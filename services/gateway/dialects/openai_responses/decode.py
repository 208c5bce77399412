"""A responses body into a canonical request."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import msgspec

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.dialects.common import sampling, turns, work_class
from services.gateway.dialects.common.json_body import bad, encode_text, unsupported
from services.gateway.dialects.common.json_schema import schema_text
from services.gateway.dialects.dialect import DecodedRequest, Head
from services.gateway.dialects.openai_chat import wishes
from services.gateway.dialects.openai_responses.fields import (
    COUNT,
    READER,
    PromptFields,
    ResponsesRequest,
)
from services.gateway.dialects.openai_responses.items import TurnBuilder
from services.gateway.dialects.openai_responses.listed import listed_items
from services.gateway.dialects.openai_responses.store.history import History
from services.gateway.dialects.openai_responses.toolbox import Toolbox, toolbox_of

_LOGPROBS: Final = "message.output_text.logprobs"
_ENCRYPTED: Final = "reasoning.encrypted_content"


@dataclasses.dataclass(slots=True)
class ResponseDetail:
    """What the encoder needs again.

    Attributes:
        wire: the body; the response repeats much of it.
        tools: which of the tools are custom tools, and their namespaces.
        response_id: id of the response.
        input_items: the items of this request, each with an id, for the store.
        owner: the principal that the response belongs to.
    """

    wire: ResponsesRequest
    tools: Toolbox
    response_id: str
    input_items: list[dict[str, Any]]
    owner: str

    @property
    def stores(self) -> bool:
        """The response is to be stored."""
        return self.wire.store is not False

    @property
    def summarises(self) -> bool:
        """Reasoning is returned as a summary, because the client wants one."""
        wish = self.wire.reasoning
        return wish is not None and bool(wish.summary or wish.generate_summary)

    @property
    def encrypts(self) -> bool:
        """Reasoning items also carry their text in opaque form, to be sent back."""
        return _ENCRYPTED in (self.wire.include or ())

    @property
    def logprobs(self) -> bool:
        """The client wants log probabilities."""
        return bool(self.wire.top_logprobs) or _LOGPROBS in (self.wire.include or ())


def decode(body: bytes, head: Head, history: History, response_id: str) -> DecodedRequest:
    """Reads a request.

    Raises:
        FleetError: BAD_REQUEST or UNSUPPORTED_FIELD with the field's path; NOT_FOUND for a
            previous response that is not kept.
    """
    wire: ResponsesRequest = READER.read(body)
    _refuse_what_nobody_does(wire)
    tools = toolbox_of(wire.tools, wire.tool_choice)
    named = listed_items(wire.input, response_id)
    items = history.resolve(named, owner=head.principal, allowance=head.allowance)
    detail = ResponseDetail(wire, tools, response_id, items, head.principal)
    request = generation.GenerateRequest(
        request_id=head.request_id,
        constraint=_constraint(wire),
        reasoning=_reasoning(wire),
        top_logprobs=(wire.top_logprobs or 0) if detail.logprobs else None,
        work_class=work_class.of_tier(wire.service_tier),
    )
    _fill_chat(wire, request.chat, tools, items, history=history, head=head)
    sampling.fill_sampling(wire, request.sampling)
    sampling.fill_stop(wire, request.stop, stop=wire.stop, max_tokens=wire.max_output_tokens)
    if wire.chat_template_kwargs:
        request.chat.template_variables_json = encode_text(wire.chat_template_kwargs)
    return DecodedRequest(
        model=wire.model,
        stream=bool(wire.stream),
        requests=[request],
        detail=detail,
        constraint_field="text.format.schema" if request.HasField("constraint") else "",
    )


def decode_count(body: bytes, head: Head, history: History) -> neuron.CountTokensRequest:
    """Reads a token count."""
    wire = COUNT.read(body)
    request = neuron.CountTokensRequest(model=wire.model)
    fill_chat(wire, request.chat, history=history, head=head)
    return request


def fill_chat(wire: PromptFields, chat: conversation.Chat, *, history: History, head: Head) -> None:
    """Fills in the canonical conversation of a request.

    Raises:
        FleetError: as `decode`.
    """
    tools = toolbox_of(wire.tools, wire.tool_choice)
    named = listed_items(wire.input, "resp_")
    items = history.resolve(named, owner=head.principal, allowance=head.allowance)
    _fill_chat(wire, chat, tools, items, history=history, head=head)


def _refuse_what_nobody_does(wire: ResponsesRequest) -> None:
    if not wire.model:
        raise bad("model", "must not be empty.")
    if wire.background and wire.stream:
        raise unsupported("stream", "a response in the background is looked up, not streamed.")
    if wire.background and wire.store is False:
        raise bad("store", "a response in the background has to be stored.")
    if wire.prompt is not None:
        raise unsupported("prompt", "there are no stored prompts here.")
    if wire.truncation not in {None, "auto", "disabled"}:
        raise bad("truncation", f"{wire.truncation!r} is none of auto, disabled.")


def _fill_chat(
    wire: PromptFields,
    chat: conversation.Chat,
    tools: Toolbox,
    items: list[dict[str, Any]],
    *,
    history: History,
    head: Head,
) -> None:
    if wire.conversation is not None:
        raise unsupported("conversation", "use previous_response_id to go on from a response.")
    builder = TurnBuilder()
    _instruct(builder, wire.instructions)
    if wire.previous_response_id is not None:
        earlier = history.before(
            wire.previous_response_id, owner=head.principal, allowance=head.allowance
        )
        builder.add(earlier, "previous_response_id")
    builder.add(items, "input")
    if wire.previous_response_id is not None and builder.orphan is not None:
        raise bad(
            "input", f"No tool call found for function call output with call_id {builder.orphan}."
        )
    found = builder.finished()
    if not found:
        raise bad("input", "must hold at least one item.")
    chat.MergeFrom(
        conversation.Chat(
            tools=tools.offered,
            tool_choice=tools.choice,
            parallel_tool_calls=wire.parallel_tool_calls,
        )
    )
    turns.write(found, chat)


def _instruct(builder: TurnBuilder, instructions: str | list[dict[str, Any]] | None) -> None:
    if isinstance(instructions, str):
        builder.instruct(instructions)
    elif instructions is not None:
        builder.add(instructions, "instructions")


def _constraint(wire: PromptFields) -> generation.OutputConstraint | None:
    wish = wire.text.format if wire.text else None
    match wish.type if wish else "text":
        case "text":
            return None
        case "json_object":
            return wishes.any_object()
        case "json_schema":
            schema = schema_text(wish.schema if wish else msgspec.Raw(), "text.format.schema")
            if not schema:
                raise bad("text.format.schema", "Field required.")
            return generation.OutputConstraint(json_schema=schema)
        case other:
            raise bad("text.format.type", f"{other!r} is none of text, json_object, json_schema.")


def _reasoning(wire: ResponsesRequest) -> generation.Reasoning | None:
    effort = wire.reasoning.effort if wire.reasoning else None
    if effort is None:
        return None
    if effort == "none":
        return generation.Reasoning(enabled=False)
    return generation.Reasoning(enabled=True, effort=wishes.effort_of(effort, "reasoning.effort"))
