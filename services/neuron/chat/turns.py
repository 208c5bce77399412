"""Other orders of the same turns, for templates that refuse the one that came. Pure.

Agents send system turns in mid-conversation and two user turns in a row; many templates raise on
both. Nothing is dropped here: text only moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from services.neuron.chat.messages import Message


def variants(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """The turns as they came, then ever more accommodating orders, without repetitions."""
    seen: list[list[Message]] = []
    front = _systems_first(messages)
    for made in (list(messages), front, _joined(front), _joined(_systems_in_user(front))):
        if made not in seen:
            seen.append(made)
            yield made


def system_texts(messages: Sequence[Message]) -> list[str]:
    """The texts of all system turns."""
    return [_text(message["content"]) for message in messages if message["role"] == "system"]


def _systems_first(messages: Sequence[Message]) -> list[Message]:
    """All system turns as one, at the front, in their order."""
    texts = system_texts(messages)
    if not texts:
        return list(messages)
    rest = [message for message in messages if message["role"] != "system"]
    return [{"role": "system", "content": "\n\n".join(texts)}, *rest]


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Neighbouring turns of one speaker as one."""
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else None
        if last is not None and message["role"] == last["role"] and message["role"] != "tool":
            joined[-1] = _merged(last, message)
        else:
            joined.append(message)
    return joined


def _merged(first: Message, second: Message) -> Message:
    merged = first | second | {"content": _concatenated(first["content"], second["content"])}
    for key, empty in (("tool_calls", []), ("reasoning_content", "")):
        if key in merged:
            merged[key] = first.get(key, empty) + second.get(key, empty)
    return merged


def _systems_in_user(messages: Sequence[Message]) -> list[Message]:
    """The leading system turn as the beginning of the first user turn."""
    if not messages or messages[0]["role"] != "system":
        return list(messages)
    system, *rest = messages
    for index, message in enumerate(rest):
        if message["role"] == "user":
            content = _concatenated(system["content"], message["content"])
            return [*rest[:index], message | {"content": content}, *rest[index + 1 :]]
    return [system | {"role": "user"}, *rest]


def _concatenated(first: Any, second: Any) -> Any:
    if isinstance(first, str) and isinstance(second, str):
        return "\n\n".join(filter(None, (first, second)))
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)
