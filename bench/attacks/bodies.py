"""Attacks that are bodies of requests."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

from bench.attacks.target import Target

Body = tuple[str, bytes]
_CHAT = "/v1/chat/completions"
_MESSAGE = b'{"role":"user","content":"x"}'


def _dumped(target: Target, path: str = _CHAT, **more: Any) -> Body:
    return path, json.dumps(target.chat("Hi", **{"max_tokens": 4, **more})).encode()


def _messages(target: Target, count: int, path: str, field: str) -> Body:
    head = json.dumps({"model": target.model, "max_tokens": 4})[:-1].encode()
    return path, head + b', "%b": [' % field.encode() + b",".join([_MESSAGE] * count) + b"]}"


def _schema(target: Target, schema: Any) -> Body:
    wrapped = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    return _dumped(target, response_format=wrapped)


def _nested_schema(depth: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema, "b": schema}}
    return schema


def _tools(target: Target) -> Body:
    properties = {f"p{i}": {"type": ["string", "null"]} for i in range(60)}
    tools = [
        {
            "type": "function",
            "function": {"name": f"t{i}", "parameters": {"properties": properties}},
        }
        for i in range(128)
    ]
    return _dumped(target, tools=tools, tool_choice="required")


def _picture(target: Target, url: str, count: int = 1) -> Body:
    part = {"type": "image_url", "image_url": {"url": url}}
    messages = [{"role": "user", "content": [part] * count}]
    return _dumped(target, messages=messages)


def _bomb(side: int) -> str:
    """A PNG of so many pixels a side, all black: small, until it is decoded."""
    rows = zlib.compress(b"\0" * (side // 8 + 1) * side, 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )
    data = base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()
    return f"data:image/png;base64,{data}"


def _megabytes(target: Target, count: int, path: str = _CHAT) -> Body:
    return path, json.dumps(target.chat("a b " * (count << 18), max_tokens=4)).encode()


def _deep(target: Target, depth: int) -> Body:
    path, body = _dumped(target, metadata="@")
    return path, body.replace(b'"@"', b"[" * depth + b"]" * depth)


# What is asked, by what it is called; made in the attacker's process.
BODIES: dict[str, Callable[[Target], list[Body]]] = {
    "300,000 messages": lambda t: [_messages(t, 300_000, _CHAT, "messages")],
    "33,000 messages, which are allowed": lambda t: [_messages(t, 33_000, _CHAT, "messages")],
    "33,000 items of Responses": lambda t: [_messages(t, 33_000, "/v1/responses", "input")],
    "33,000 messages to count": lambda t: [
        _messages(t, 33_000, "/v1/messages/count_tokens", "messages")
    ],
    "JSON nested 1,000,000 deep": lambda t: [_deep(t, 1_000_000)],
    "60 MB of prompt": lambda t: [_megabytes(t, 60)],
    "60 MB to count": lambda t: [_megabytes(t, 60, "/v1/messages/count_tokens")],
    "60 MB that are no JSON": lambda _: [(_CHAT, b'"' * (60 << 20))],
    "stop strings of 1,000,000 and 1,000 letters": lambda t: [
        _dumped(t, stop=["a" * 1_000_000]),
        _dumped(t, stop=["a" * 999 + str(i) for i in range(4)]),
    ],
    "patterns that explode": lambda t: [
        _dumped(t, structured_outputs={"regex": "(.*a.{18})|(.*b.{17})"}, max_tokens=300),
        _dumped(t, structured_outputs={"regex": "(a{1000}){1000}"}),
        _dumped(t, structured_outputs={"regex": "(" * 2000 + "a" + ")*" * 2000}),
        _dumped(t, structured_outputs={"grammar": "start: " + "a? " * 3000 + '\na: "x" | "y"'}),
    ],
    "schemas that explode": lambda t: [
        _schema(t, _nested_schema(14)),
        _schema(t, {"type": "object", "properties": {f"p{i}": {} for i in range(9_000)}}),
        _schema(t, {"enum": ["a" * i for i in range(3_000)]}),
        _schema(t, {"allOf": [{"type": "object", "minProperties": i} for i in range(3_000)]}),
        _schema(t, {"type": "array", "items": {}, "minItems": 100_000, "maxItems": 100_001}),
    ],
    "128 tools of 60 fields, forced": lambda t: [_tools(t)],
    "pictures": lambda t: [
        _picture(t, _bomb(60_000)),
        _picture(t, _bomb(4_000), 100),
        _picture(t, "data:image/png;base64," + "A" * (20 << 20)),
    ],
    "n of 128, 20 alternatives each": lambda t: [
        _dumped(t, n=128, logprobs=True, top_logprobs=20, max_tokens=30)
    ],
    "2,000 prompts": lambda t: [
        (
            "/v1/completions",
            json.dumps({"model": t.model, "prompt": ["a"] * 2000, "max_tokens": 1}).encode(),
        )
    ],
    "50,000 biases": lambda t: [_dumped(t, logit_bias={str(i): 1 for i in range(50_000)})],
}
