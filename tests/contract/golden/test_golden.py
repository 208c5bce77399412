"""Bodies that real clients send, and what the fleet is asked for in return.

Each `<dialect>/<name>.json` holds a client's version, the headers that matter and its body; the
`.textproto` beside it is the canonical request. `CORTEX_UPDATE_GOLDEN=1` writes them anew.
"""

from __future__ import annotations

import json
import os
import pathlib

import pytest
from google.protobuf import text_format

from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.anthropic_messages.routes import AnthropicMessages
from services.gateway.dialects.dialect import Dialect, Head
from services.gateway.dialects.ollama.routes import OllamaChat, OllamaGenerate
from services.gateway.dialects.openai_chat.routes import OpenAIChat
from services.gateway.dialects.openai_completions.routes import OpenAICompletions
from services.gateway.dialects.openai_responses.routes import OpenAIResponses
from services.gateway.dialects.openai_responses.store.store import ResponsesStore

HERE = pathlib.Path(__file__).parent
REQUESTS = sorted(HERE.glob("*/*.json"))


def _dialects(store: ResponsesStore) -> dict[str, Dialect]:
    every: list[Dialect] = [
        OpenAIChat(),
        AnthropicMessages(),
        OpenAIResponses(store),
        OpenAICompletions(),
        OllamaChat(),
        OllamaGenerate(),
    ]
    return {one.name: one for one in every}


def _decoded(path: pathlib.Path) -> list[generation.GenerateRequest]:
    captured = json.loads(path.read_text())
    store = ResponsesStore(None)
    head = Head("req_1", captured["headers"], {}, 1_700_000_000)
    try:
        decoded = _dialects(store)[path.parent.name].decode(
            json.dumps(captured["body"]).encode(), head
        )
    finally:
        store.close()
    assert decoded.model == "M"
    assert decoded.stream == captured["body"].get("stream", False)
    return list(decoded.requests)


@pytest.mark.parametrize("path", REQUESTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_a_client_sends_is_understood(path: pathlib.Path) -> None:
    found = _decoded(path)

    expected = path.with_suffix(".textproto")
    told = "---\n".join(text_format.MessageToString(one, as_utf8=True) for one in found)
    if os.environ.get("CORTEX_UPDATE_GOLDEN"):
        expected.write_text(told)
    wanted = [
        text_format.Parse(text, generation.GenerateRequest())
        for text in expected.read_text().split("---\n")
    ]
    assert wanted == found


def test_there_are_requests() -> None:
    """An empty folder would pass everything."""
    assert len(REQUESTS) >= 20
