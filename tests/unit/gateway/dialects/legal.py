"""What a legal stream is in each dialect. Each checker fails, or tells what the stream said."""

from __future__ import annotations

import dataclasses
import json
from typing import Any


@dataclasses.dataclass
class Said:
    """What a client has understood.

    Attributes:
        parts: kind and text in order, where the dialect tells the order.
    """

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str, Any]] = dataclasses.field(default_factory=list)
    parts: list[tuple[str, str]] | None = None
    finish: str = ""
    usage: dict[str, Any] = dataclasses.field(default_factory=dict)
    error: dict[str, Any] | None = None


def sse(data: bytes) -> list[tuple[str, Any]]:
    """Events of a stream: the event line (or empty) and the data; comments are passed over."""
    assert not data or data.endswith(b"\n\n"), "the last event is not whole"
    found: list[tuple[str, Any]] = []
    for frame in data.decode().split("\n\n")[:-1]:
        name, payload = "", None
        for line in frame.split("\n"):
            field, _, value = line.partition(":")
            if field == "event":
                name = value.removeprefix(" ")
            elif field == "data":
                assert payload is None, "one data line per event"
                payload = value.removeprefix(" ")
            else:
                assert not field, f"a field that no client knows: {line!r}"
        if payload is not None:
            found.append((name, payload if payload == "[DONE]" else json.loads(payload)))
    return found


def chat(data: bytes, *, include_usage: bool) -> Said:
    events = [payload for _, payload in sse(data)]
    said = Said()
    if "error" in events[-1]:
        said.error = events.pop()["error"]
    else:
        assert events.pop() == "[DONE]"
    assert "[DONE]" not in events
    calls: dict[int, dict[str, str]] = {}
    for number, chunk in enumerate(events):
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["id"] == events[0]["id"]
        assert chunk["model"] == events[0]["model"]
        assert ("usage" in chunk) == include_usage
        if chunk.get("usage"):
            assert number == len(events) - 1, "usage ends the stream"
            said.usage = chunk["usage"]
        if not chunk["choices"]:
            assert include_usage
            assert chunk["usage"]
            continue
        (choice,) = chunk["choices"]
        delta = choice["delta"]
        assert not said.finish, "nothing behind the finish"
        assert ("role" in delta) == (number == 0)
        said.text += delta.get("content") or ""
        said.reasoning += delta.get("reasoning_content") or ""
        for call in delta.get("tool_calls", ()):
            if call["index"] not in calls:
                assert call["index"] == len(calls)
                assert call["type"] == "function"
                calls[call["index"]] = {
                    "id": call["id"],
                    "name": call["function"]["name"],
                    "arguments": "",
                }
            calls[call["index"]]["arguments"] += call["function"]["arguments"]
        said.finish = choice["finish_reason"] or ""
    if said.error is None:
        assert said.finish
        assert bool(said.usage) == include_usage
        said.calls = [(c["id"], c["name"], json.loads(c["arguments"])) for c in calls.values()]
    return said


def completion(data: bytes) -> Said:
    events = [payload for _, payload in sse(data)]
    said = Said()
    if "error" in events[-1]:
        said.error = events.pop()["error"]
    else:
        assert events.pop() == "[DONE]"
    for number, chunk in enumerate(events):
        assert chunk["object"] == "text_completion"
        (choice,) = chunk["choices"]
        assert not said.finish
        said.text += choice["text"]
        said.finish = choice["finish_reason"] or ""
        if chunk.get("usage"):
            assert number == len(events) - 1
            said.usage = chunk["usage"]
    return said


_DELTA_OF = {"text": "text_delta", "thinking": "thinking_delta", "tool_use": "input_json_delta"}


def messages(data: bytes) -> Said:
    events = sse(data)
    said = Said(parts=[])
    _begin_message(said, events)
    block: dict[str, Any] | None = None
    index, ended = -1, False
    for name, payload in events[1:]:
        assert name == payload["type"], "event line and data tell the same"
        assert not said.finish or name == "message_stop"
        if name == "ping":
            continue
        match name:
            case "content_block_start":
                assert block is None, "blocks follow one another"
                block = dict(payload["content_block"])
                index += 1
                assert payload["index"] == index
                block |= {"body": "", "signed": False}
            case "content_block_delta":
                assert block is not None
                assert payload["index"] == index
                delta = payload["delta"]
                assert not block["signed"], "nothing behind the signature"
                if delta["type"] == "signature_delta":
                    assert block["type"] == "thinking"
                    assert delta["signature"]
                    block["signed"] = True
                else:
                    assert delta["type"] == _DELTA_OF[block["type"]]
                    block["body"] += (
                        delta.get("text")
                        or delta.get("thinking")
                        or delta.get("partial_json")
                        or ""
                    )
            case "content_block_stop":
                assert block is not None
                assert payload["index"] == index
                _end_block(said, block)
                block = None
            case "message_delta":
                assert block is None
                said.finish = payload["delta"]["stop_reason"]
                said.usage |= payload["usage"]
            case "message_stop":
                ended = True
            case _:
                raise AssertionError(f"no such event: {name}")
    assert ended == (said.error is None)
    return said


def _begin_message(said: Said, events: list[tuple[str, Any]]) -> None:
    if events[-1][0] == "error":
        said.error = events.pop()[1]["error"]
    if events or said.error is None:
        assert events[0][0] == "message_start"
        said.usage = dict(events[0][1]["message"]["usage"])


def _grow_block(block: dict[str, Any], delta: dict[str, Any]) -> None:
    assert not block["signed"], "nothing behind the signature"
    if delta["type"] == "signature_delta":
        assert block["type"] == "thinking"
        assert delta["signature"]
        block["signed"] = True
        return
    assert delta["type"] == _DELTA_OF[block["type"]]
    block["body"] += delta.get("text") or delta.get("thinking") or delta.get("partial_json") or ""


def _end_block(said: Said, block: dict[str, Any]) -> None:
    assert said.parts is not None
    if block["type"] == "text":
        said.text += block["body"]
        said.parts.append(("text", block["body"]))
    elif block["type"] == "thinking":
        assert block["signed"]
        said.reasoning += block["body"]
        said.parts.append(("reasoning", block["body"]))
    else:
        assert block["input"] == {}
        said.calls.append((block["id"], block["name"], json.loads(block["body"] or "{}")))
        said.parts.append(("tool_call", block["body"]))


_TERMINAL = {"response.completed", "response.incomplete", "response.failed"}


def responses(data: bytes) -> Said:
    events = sse(data)
    said = Said(parts=[])
    items: list[dict[str, Any]] = []
    texts: dict[str, str] = {}
    open_item: dict[str, Any] | None = None
    assert events[0][0] == "response.created"
    for number, (name, payload) in enumerate(events):
        assert name == payload["type"]
        assert number == payload["sequence_number"]
        assert not said.finish, "nothing behind the end"
        if "item_id" in payload:
            assert open_item is not None
            assert payload["item_id"] == open_item["id"]
            assert payload["output_index"] == len(items)
        if name == "response.output_item.added":
            assert open_item is None
            assert payload["output_index"] == len(items)
            open_item = payload["item"]
            assert open_item["status"] == "in_progress"
        elif name.endswith(".delta"):
            texts[payload["item_id"]] = texts.get(payload["item_id"], "") + payload["delta"]
        elif name == "response.output_item.done":
            assert open_item is not None
            assert payload["output_index"] == len(items)
            assert payload["item"]["id"] == open_item["id"]
            _end_item(said, payload["item"], texts.get(open_item["id"], ""))
            items.append(payload["item"])
            open_item = None
        elif name in _TERMINAL:
            assert open_item is None
            assert payload["response"]["output"] == items
            said.finish = payload["response"]["status"]
            assert "response." + said.finish == name
            said.usage = payload["response"]["usage"] or {}
            said.error = payload["response"]["error"]
    assert said.finish
    assert (said.error is None) == (said.finish != "failed")
    return said


def _end_item(said: Said, item: dict[str, Any], streamed: str) -> None:
    assert said.parts is not None
    if item["type"] == "message":
        (part,) = item["content"]
        said.text += part["text"]
        said.parts.append(("text", part["text"]))
        assert streamed == part["text"]
    elif item["type"] == "reasoning":
        (part,) = item.get("content") or item["summary"]
        said.reasoning += part["text"]
        said.parts.append(("reasoning", part["text"]))
        assert streamed == part["text"]
    elif item["type"] == "function_call":
        assert streamed == item["arguments"]
        if item["status"] == "completed":
            said.calls.append((item["call_id"], item["name"], json.loads(item["arguments"])))
        said.parts.append(("tool_call", item["arguments"]))


def lines(data: bytes) -> Said:
    """Ollama's lines of JSON."""
    found = [json.loads(line) for line in data.decode().split("\n")[:-1]]
    said = Said()
    if "error" in found[-1]:
        said.error = found.pop()
    for number, line in enumerate(found):
        assert line["done"] == (number == len(found) - 1 and said.error is None)
        message = line["message"]
        said.text += message["content"]
        said.reasoning += message.get("thinking", "")
        for call in message.get("tool_calls", ()):
            said.calls.append(("", call["function"]["name"], call["function"]["arguments"]))
        said.finish = line.get("done_reason", "")
        if line["done"]:
            said.usage = line
    return said
