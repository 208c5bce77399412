"""What an alias makes of the requests that are sent to it, on their canonical form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from cortex.v1 import registry_service_pb2 as registry

_SAMPLING: Final = generation.Sampling.DESCRIPTOR.fields_by_name.keys()
_STOP_FIELDS: Final = {
    "max_tokens": ("max_tokens",),
    "min_tokens": ("min_tokens",),
    "stop": ("stop_strings", "stop_token_ids"),
}


def follow(
    rules: registry.AliasRules | None, requests: Sequence[generation.GenerateRequest]
) -> None:
    """Applies the rules of an alias to its requests; without rules they stay as they are."""
    if rules is None:
        return
    for request in requests:
        for name in rules.stripped:
            _strip(request, name)
        _fill(request, rules.defaults, is_forced=False)
        _fill(request, rules.forced, is_forced=True)
        if rules.system and request.HasField("chat"):
            lead(request.chat, rules.system)


def follow_in_chat(rules: registry.AliasRules | None, chat: conversation.Chat) -> None:
    """Applies the rules to a chat whose tokens are only counted, as to one that is run."""
    if rules is None:
        return
    if "tools" in rules.stripped:
        _strip_tools(chat)
    if rules.system:
        lead(chat, rules.system)


def lead(chat: conversation.Chat, system: str) -> None:
    """Puts words before the system prompt of a chat; one that has none gets one."""
    if chat.messages and chat.messages[0].role == conversation.ROLE_SYSTEM:
        chat.messages[0].parts.insert(0, conversation.Part(text=f"{system}\n\n"))
        return
    words = [conversation.Part(text=system)]
    chat.messages.insert(0, conversation.Message(role=conversation.ROLE_SYSTEM, parts=words))


def _strip(request: generation.GenerateRequest, name: str) -> None:
    sampling: Any = request.sampling
    stop: Any = request.stop
    if name in _SAMPLING:
        sampling.ClearField(name)
    elif name in _STOP_FIELDS:
        for field in _STOP_FIELDS[name]:
            stop.ClearField(field)
    elif name in _OTHERS:
        _OTHERS[name](request)


def _strip_tools(chat: conversation.Chat) -> None:
    for field in ("tools", "tool_choice", "parallel_tool_calls"):
        cast("Any", chat).ClearField(field)


_OTHERS: Final[Mapping[str, Callable[[Any], None]]] = {
    "reasoning": lambda request: request.ClearField("reasoning"),
    "response_format": lambda request: request.ClearField("constraint"),
    "tools": lambda request: _strip_tools(request.chat) if request.HasField("chat") else None,
}


def _fill(
    request: generation.GenerateRequest, values: registry.RequestValues, *, is_forced: bool
) -> None:
    sampling: Any = request.sampling
    for field, value in values.sampling.ListFields():
        if is_forced or not sampling.HasField(field.name):
            setattr(sampling, field.name, value)
    if values.HasField("max_tokens") and (is_forced or not request.stop.HasField("max_tokens")):
        request.stop.max_tokens = values.max_tokens
    if values.HasField("reasoning") and (is_forced or not request.HasField("reasoning")):
        request.ClearField("reasoning")
        request.reasoning.enabled = values.reasoning
