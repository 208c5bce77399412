"""Other orders of the same turns, for templates that refuse the one that came. Pure.

Agents send system turns in mid-conversation, two user turns in a row, and text behind the results
of tools, or begin with the assistant; many templates raise on each. Nothing is dropped here: text
only moves, and ids are renamed throughout. For what they raise on in calls see `calls_in_turns`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from services.neuron.chat.calls_in_turns import one_a_turn, repaired, text_apart
from services.neuron.chat.messages import Message, concatenated, runs


def variants(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """The turns as they came, then ever more accommodating orders, each made when it is asked for.

    An order that changes nothing is left out. Whoever takes one may change the list.
    """
    for base in _steps(messages, repaired, _calls_alone):
        for turns in _steps(base, _text_in_results):
            for made in _orders(turns):
                yield list(made)


def _orders(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    yield from _steps(messages, _systems_first, _joined, _user_first)
    front = _systems_first(messages)
    without = _systems_in_user(front)
    if without != front:
        yield _user_first(_joined(without))


def _steps(
    messages: Sequence[Message], *steps: Callable[[Sequence[Message]], list[Message]]
) -> Iterator[Sequence[Message]]:
    """The turns, then what each step makes of those before it, where that is something else."""
    last = list(messages)
    yield last
    for step in steps:
        made = step(last)
        if made != last:
            yield made
        last = made


def _calls_alone(messages: Sequence[Message]) -> list[Message]:
    return text_apart(one_a_turn(messages))


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
    found = runs(
        messages, lambda first, behind: (first["role"], behind["role"]) == ("tool", "user")
    )
    return [run[0] | _content(run) if len(run) > 1 else run[0] for run in found]


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Neighbouring turns of one speaker as one."""
    found = runs(messages, lambda first, behind: first["role"] == behind["role"] != "tool")
    return [_merged(run) if len(run) > 1 else run[0] for run in found]


def _merged(run: Sequence[Message]) -> Message:
    merged: Message = {}
    for message in run:
        merged.update(message)
    merged |= _content(run)
    if "tool_calls" in merged:
        merged["tool_calls"] = [call for each in run for call in each.get("tool_calls", ())]
    for key in ("reasoning_content", "thinking"):
        if key in merged:
            merged[key] = "".join(each.get(key, "") for each in run)
    return merged


def _content(run: Sequence[Message]) -> Message:
    return {"content": concatenated(*(message["content"] for message in run))}


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
