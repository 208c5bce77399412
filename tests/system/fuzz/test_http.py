"""Bodies of real clients, changed by chance, at every HTTP endpoint of a whole fleet."""

import http.client
import json
import pathlib
import urllib.parse
from typing import Any

from tests.system.fuzz.mutation import encoded, mutated, mutated_bytes, smaller
from tests.system.fuzz.search import search

GOLDEN = pathlib.Path(__file__).parents[2] / "contract" / "golden"
HI = [{"role": "user", "content": "hi"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
TOOL = {"name": "now", "description": "The time", "parameters": {"type": "object"}}
PATHS = {
    "anthropic_messages": ("/v1/messages", "/v1/messages/count_tokens"),
    "ollama_chat": ("/api/chat",),
    "ollama_generate": ("/api/generate",),
    "openai_chat": ("/v1/chat/completions",),
    "openai_completions": ("/v1/completions",),
    "openai_responses": ("/v1/responses",),
}
# Short bodies, as most of a real one is its prompt.
SHORT: list[tuple[str, dict[str, Any]]] = [
    (
        "/v1/chat/completions",
        {
            "messages": [*HI, {"role": "assistant", "tool_calls": [CALL]}],
            "tools": [{"type": "function", "function": TOOL}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}},
            "logprobs": True,
            "top_logprobs": 2,
            "n": 2,
            "stop": ["x"],
            "stream": True,
            "stream_options": {"include_usage": True},
            "logit_bias": {"5": 1},
        },
    ),
    (
        "/v1/responses",
        {
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
            "tools": [{"type": "function", **TOOL}],
            "text": {"format": {"type": "json_object"}},
            "reasoning": {"effort": "low"},
            "previous_response_id": "resp_1",
            "store": True,
        },
    ),
    (
        "/v1/messages",
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            "max_tokens": 9,
            "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
            "tools": [{"name": "now", "input_schema": {"type": "object"}}],
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        },
    ),
    ("/v1/completions", {"prompt": "hi", "max_tokens": 3, "logprobs": 1, "echo": True}),
    ("/v1/embeddings", {"input": ["a", "b"], "encoding_format": "base64", "dimensions": 8}),
    ("/api/chat", {"messages": HI, "format": {"type": "object"}, "think": True, "keep_alive": 5}),
    ("/api/generate", {"prompt": "hi", "options": {"num_predict": 4}, "keep_alive": "5m"}),
    ("/api/embed", {"input": ["a"], "truncate": True}),
    ("/api/embeddings", {"prompt": "a"}),
    ("/api/show", {"verbose": True}),
    ("/api/pull", {"stream": False}),
]
GETS = ("/v1/models/alpha", "/v1/responses/resp_1/input_items?limit=5&after=x", "/api/tags", "/")
SEEDS = [
    *(
        (path, {**json.loads(file.read_text())["body"], "model": "alpha"})
        for file in sorted(GOLDEN.glob("*/*.json"))
        for path in PATHS[file.parent.name]
    ),
    *((path, {"model": "alpha", **body}) for path, body in SHORT * 4),
]
BODIES = [body for _, body in SEEDS]
PATIENCE_SECONDS = 20.0


def make(random):
    """(method, path, body); the body is JSON, bytes, or None."""
    if random.random() < 0.05:
        path = mutated_bytes(random, random.choice(GETS).encode())
        return (
            random.choice(("GET", "POST", "DELETE")),
            "/" + urllib.parse.quote(path, "/?=&"),
            None,
        )
    path, seed = random.choice(SEEDS)
    body = mutated(random, seed, BODIES)
    if random.random() < 0.1:
        body = mutated_bytes(random, encoded(body))
    return "POST", path, body


def simpler(made):
    method, path, body = made
    return ((method, path, less) for less in smaller(body))


class Client:
    """Sends inputs, and says what is wrong with an answer."""

    def __init__(self, url, watch):
        self._where = urllib.parse.urlsplit(url)
        self._watch = watch
        self._sent = 0

    def problem(self, made):
        self._sent += 1
        if self._sent == 200:
            self._watch.settle()
        method, path, body = made
        data = body if isinstance(body, bytes) else None if body is None else encoded(body)
        connection = http.client.HTTPConnection(
            self._where.hostname, self._where.port, timeout=PATIENCE_SECONDS
        )
        try:
            connection.request(method, path, data, {"content-type": "application/json"})
            response = connection.getresponse()
            told = response.read()
        except (TimeoutError, OSError, http.client.HTTPException) as error:
            return f"{method} {path.partition('?')[0]}: {type(error).__name__}"
        finally:
            connection.close()
        if response.status == 500 or b'"internal_error"' in told:
            return f"{method} {path}: {response.status} {told[-300:]!r} {self._watch.traceback()}"
        return self._watch.traceback()


def test_no_body_is_answered_with_500(fleet, watch):
    client = Client(fleet.url, watch)

    search(make, client.problem, simpler)

    watch.check_memory()
    assert (
        client.problem(("POST", "/v1/chat/completions", {"model": "alpha", "messages": HI})) == ""
    )
