"""Other orders of the same turns, for templates that refuse the one that came. Pure.

Agents send system turns in mid-conversation, two user turns in a row, and text behind the results
of tools; many templates raise on each. Mistral's raise on ids of calls that are not nine letters
and digits. Nothing is dropped here: text only moves, and ids are renamed throughout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

from services.neuron.chat.messages import Message, concatenated

# mistral-common's rule for ids of calls, which Mistral's templates check.
_ID_LENGTH: Final = 9


def variants(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """The turns as they came, then ever more accommodating orders, without repetitions."""
    seen: list[list[Message]] = []
    for base in (messages, _short_ids(messages)):
        for turns in (base, _text_in_results(base)):
            for made in _orders(turns):
                if made not in seen:
                    seen.append(made)
                    yield made


def _orders(messages: Sequence[Message]) -> Iterator[list[Message]]:
    front = _systems_first(messages)
    yield from (list(messages), front, _joined(front), _joined(_systems_in_user(front)))


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


def _short_ids(messages: Sequence[Message]) -> list[Message]:
    """Ids of calls as Mistral's templates want them, the same for a call and its result."""
    renamed: list[Message] = []
    for message in messages:
        new = dict(message)
        if "tool_calls" in message:
            new["tool_calls"] = [
                call | {"id": _short_id(call["id"])} for call in message["tool_calls"]
            ]
        if "tool_call_id" in message:
            new["tool_call_id"] = _short_id(message["tool_call_id"])
        renamed.append(new)
    return renamed


def _short_id(call_id: str) -> str:
    if len(call_id) == _ID_LENGTH and call_id.isascii() and call_id.isalnum():
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:_ID_LENGTH]


def _text_in_results(messages: Sequence[Message]) -> list[Message]:
    """What the user says directly behind a tool's result as the end of that result."""
    moved: list[Message] = []
    for message in messages:
        last = moved[-1] if moved else None
        if last is not None and last["role"] == "tool" and message["role"] == "user":
            content = concatenated(last["content"], message["content"])
            moved[-1] = last | {"content": content}
        else:
            moved.append(message)
    return moved


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
    merged = first | second | {"content": concatenated(first["content"], second["content"])}
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
            content = concatenated(system["content"], message["content"])
            return [*rest[:index], message | {"content": content}, *rest[index + 1 :]]
    return [system | {"role": "user"}, *rest]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)
