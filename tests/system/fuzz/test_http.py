"""Bodies of real clients, changed by chance, at every HTTP endpoint of a whole fleet."""

import http.client
import json
import pathlib
import re
import urllib.parse
import urllib.request
from typing import Any

import pytest

from tests.system.fuzz.conftest import running
from tests.system.fuzz.description import Description
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
    ("/v1/responses/compact", {"input": "hi", "instructions": "short"}),
    ("/v1/responses/input_tokens", {"input": "hi"}),
    ("/v1/chat/completions/explain", {"messages": HI}),
    ("/v1/messages/explain", {"messages": HI, "max_tokens": 4}),
]
SCOPES = {"models": ["alp*"], "dialects": ["openai_chat"], "usual_class": "CLASS_BATCH"}
LIMITS = {"requests_per_minute": 60, "tokens_per_day": 10000}
KEY = {"name": "ci", "principal": "ann", "group": "team", "roles": ["user"], "scopes": SCOPES}
# What is no generation: the method stands before the path.
OPERATING: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/admin/keys", {**KEY, "limits": LIMITS, "expires_at": "2030-01-01T00:00:00Z"}),
    ("POST", "/admin/keys/ci/rotate", {"overlap": "3600s"}),
    ("PUT", "/admin/groups/team", {"scopes": SCOPES, "limits": LIMITS, "roles": ["user"]}),
    ("POST", "/admin/reload", {}),
    ("POST", "/ui/load", {"model": "alpha", "neuron": "local"}),
    ("POST", "/ui/unload", {"model": "none"}),
    ("POST", "/ui/pin", {"model": "none", "neuron": "local"}),
]
GETS = (
    "/v1/models/alpha",
    "/v1/responses/resp_1/input_items?limit=5&after=x",
    "/api/tags",
    "/",
    "/admin/keys?page_size=5&page_token=x&include_ended=true",
    "/admin/keys/ci",
    "/admin/groups?page_size=2",
    "/admin/groups/team",
    "/admin/usage?by=model&since=2026-01-01T00:00:00Z&principal=ann",
    "/ui/fleet",
)
SEEDS = [
    *(
        (path, {**json.loads(file.read_text())["body"], "model": "alpha"})
        for file in sorted(GOLDEN.glob("*/*.json"))
        for path in PATHS[file.parent.name]
    ),
    *((path, {"model": "alpha", **body}) for path, body in SHORT * 4),
]
BODIES = [body for _, body in SEEDS]
# All that the gateway describes, as (method, path with its parameters); filled in by the fixture.
ENDPOINTS: list[tuple[str, str]] = []
# Behind which an answer is taken for one that never comes; a load takes seconds on a full machine.
PATIENCE_SECONDS = 60.0
SECRET = "a-key-of-the-fuzzer"
HEADERS = {"content-type": "application/json", "authorization": f"Bearer {SECRET}"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """One that asks for keys from the beginning: the first that an input makes would shut it."""
    data = tmp_path_factory.mktemp("fuzzed")
    settings = data / "cortex.toml"
    settings.write_text(
        f'[[auth.keys]]\nname = "fuzz"\nkey = "{SECRET}"\nconsole = "admin"\n'
        # a constraint may keep a model from ending before its context is full
        "limits = { max_output_tokens = 64 }\n"
    )
    with running(data, "--config", str(settings)) as fleet:
        yield fleet


@pytest.fixture(scope="module", autouse=True)
def endpoints(fleet):
    ENDPOINTS[:] = sorted(
        (method.upper(), path)
        for path, methods in described(fleet.url)["paths"].items()
        for method in methods
        if path != "/ui/events"  # which has no end
    )


def make(random):
    """(method, path, body); the body is JSON, bytes, or None."""
    if random.random() < 0.05:
        path = mutated_bytes(random, random.choice(GETS).encode())
        return (
            random.choice(("GET", "POST", "DELETE")),
            "/" + urllib.parse.quote(path, "/?=&"),
            None,
        )
    if random.random() < 0.25:
        return _at_any_endpoint(random)
    path, seed = random.choice(SEEDS)
    return "POST", path, _body(random, seed)


def _at_any_endpoint(random):
    """An endpoint of `/openapi.json`, with a body made for another one where it has none itself."""
    if random.random() < 0.5:
        method, path, seed = random.choice(OPERATING)
        return method, path, _body(random, seed)
    method, path = random.choice(ENDPOINTS)
    for name in re.findall(r"\{\w+\}", path):
        path = path.replace(
            name, random.choice(("alpha", "ci", "team", "resp_1", "%00", "..", "x" * 999))
        )
    body = _body(random, random.choice(BODIES)) if method in {"POST", "PUT"} else None
    return method, path, body


def _body(random, seed):
    body = mutated(random, seed, BODIES)
    return mutated_bytes(random, encoded(body)) if random.random() < 0.1 else body


def simpler(made):
    method, path, body = made
    return ((method, path, less) for less in smaller(body))


def described(url):
    """What a gateway says of its endpoints."""
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=PATIENCE_SECONDS) as answer:
        return json.loads(answer.read())


class Client:
    """Sends inputs, and says what is wrong with an answer."""

    def __init__(self, url, watch):
        self._description = Description(described(url))
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
            connection.request(method, path, data, HEADERS)
            response = connection.getresponse()
            told = response.read()
        except (TimeoutError, OSError, http.client.HTTPException) as error:
            return f"{method} {path.partition('?')[0]}: {type(error).__name__}"
        finally:
            connection.close()
        if response.status == 500 or b'"internal_error"' in told:
            return f"{method} {path}: {response.status} {told[-300:]!r} {self._watch.traceback()}"
        kind = response.getheader("content-type", "")
        return self._watch.traceback() or self._description.complaint(
            (method, path.partition("?")[0]), data, response.status, told if "json" in kind else b""
        )


def test_every_endpoint_that_is_described_is_served(fleet):
    """One that is not there is 404 in any dialect's words; these say what is wrong instead."""
    assert len(ENDPOINTS) > 40
    where = urllib.parse.urlsplit(fleet.url)
    for method, path in ENDPOINTS:
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
        filled = re.sub(r"\{\w+\}", "alpha", path)
        connection.request(method, filled, "{}" if method != "GET" else None, HEADERS)
        status = connection.getresponse().status
        connection.close()
        assert status not in {405, 500}, (method, path, status)


def test_no_body_is_answered_with_500(fleet, watch):
    client = Client(fleet.url, watch)

    search(make, client.problem, simpler)

    watch.check_memory()
    assert (
        client.problem(("POST", "/v1/chat/completions", {"model": "alpha", "messages": HI})) == ""
    )
