"""Other orders of the same turns, for templates that refuse the one that came. Pure.

Agents send system turns in mid-conversation, two user turns in a row, and text behind the results
of tools, or begin with the assistant; many templates raise on each. Nothing is dropped here: text
only moves, and ids are renamed throughout. For what they raise on in calls see `calls_in_turns`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from services.neuron.chat.calls_in_turns import one_a_turn, repaired, text_apart
from services.neuron.chat.messages import Message, concatenated


def variants(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """The turns as they came, then ever more accommodating orders, without repetitions."""
    seen: list[list[Message]] = []
    fixed = repaired(messages)
    for base in (messages, fixed, text_apart(one_a_turn(fixed))):
        for turns in (base, _text_in_results(base)):
            for made in _orders(turns):
                if made not in seen:
                    seen.append(made)
                    yield made


def _orders(messages: Sequence[Message]) -> Iterator[list[Message]]:
    front = _systems_first(messages)
    joined = _joined(front)
    yield from (list(messages), front, joined, _user_first(joined))
    yield _user_first(_joined(_systems_in_user(front)))


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


def _user_first(messages: Sequence[Message]) -> list[Message]:
    """An empty turn of the user's before a conversation that the assistant begins."""
    systems = 1 if messages and messages[0]["role"] == "system" else 0
    if messages[systems:] and messages[systems]["role"] == "assistant":
        return [*messages[:systems], {"role": "user", "content": ""}, *messages[systems:]]
    return list(messages)


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
    for key, empty in (("tool_calls", []), ("reasoning_content", ""), ("thinking", "")):
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
