"""What an alias makes of the requests that are sent to it, on their canonical form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.errors import FleetError, Reason
from services.gateway.streaming.choice import ChoiceSink

# Nothing here can serve the model now: another may.
_UNSERVED: Final = frozenset(
    {
        Reason.NO_NEURONS,
        Reason.NO_ROOM,
        Reason.NEVER_FITS,
        Reason.QUEUE_FULL,
        Reason.QUEUE_TIMEOUT,
        Reason.LOAD_FAILED,
        Reason.MODEL_FILE_BAD,
        Reason.OUT_OF_MEMORY,
        Reason.SOURCE_UNAVAILABLE,
        Reason.SOURCE_FORBIDDEN,
        Reason.INSTANCE_GONE,
        Reason.INSTANCE_DRAINING,
        Reason.INSTANCE_MISMATCH,
        Reason.INSTANCE_RECOVERING,
        Reason.ENGINE_FAILED,
        Reason.WORKER_LOST,
        Reason.NEURON_LOST,
        Reason.REGISTRY_UNAVAILABLE,
    }
)
# What another model may be able to.
_UNABLE: Final = frozenset(
    {
        Reason.CONTEXT_TOO_LONG,
        Reason.MODEL_UNKNOWN,
        Reason.NEVER_FITS,
        Reason.NOT_SUPPORTED,
        Reason.TEMPLATE_FAILED,
        Reason.UNSUPPORTED_FIELD,
        Reason.WRONG_MODALITY,
    }
)
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


def falls_back(
    rules: registry.AliasRules | None, error: FleetError, sinks: Sequence[ChoiceSink]
) -> bool:
    """True if the request goes to the alias's fallback model: this one failed before any output."""
    return (
        rules is not None
        and bool(rules.fallback)
        and error.reason in _UNSERVED
        and all(sink.may_restart and not sink.made for sink in sinks)
    )


def is_unable(error: FleetError) -> bool:
    """True where the other model cannot do what was asked for.

    The client knows nothing of that model, and mends nothing by what is said of it: he is told why
    his own is not served.
    """
    return error.reason in _UNABLE


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
