"""What people have reported of other servers, tried on a whole fleet: project, number, right value.

One bad request took those servers down, or was answered with 500 or with nothing.
"""

import json
import socket
import struct
import threading
import urllib.error
import urllib.parse
import urllib.request

import psutil
import pytest

from tests.system.local_fleet import until

CHAT, RAW, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
HI = [{"role": "user", "content": "hi"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "noon"}
FOO = {"type": "object", "properties": {"foo": "bar"}}


def schema(value):
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": value}}


def pattern(value):
    return schema({"type": "object", "properties": {"a": {"type": "string", "pattern": value}}})


REPORTS = {
    "sgl-project/sglang#40076": (CHAT, {"logprobs": True, "top_logprobs": 1_000_000}, 400),
    "vllm-project/vllm#45467": (CHAT, {"logprobs": True, "top_logprobs": -1}, 400),
    "vllm-project/vllm#17313": (CHAT, {"guided_regex": "[.*"}, 400),
    "vllm-project/vllm#17248": (CHAT, {"guided_json": FOO}, 400),
    "vllm-project/vllm#4529 (large)": (CHAT, {"seed": 2**64, "max_tokens": 2}, 200),
    "vllm-project/vllm#4529 (negative)": (CHAT, {"seed": -1, "max_tokens": 2}, 200),
    "vllm-project/vllm#6521": (
        RAW,
        {"prompt": "Yes", "echo": True, "max_tokens": 0, "logprobs": 1},
        200,
    ),
    "vllm-project/vllm#16836": (
        RAW,
        {"prompt": "a b c", "echo": True, "max_tokens": 1, "logprobs": 10},
        200,
    ),
    "vllm-project/vllm#27921": (
        CHAT,
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": f"t{i}", "parameters": {"type": "object"}},
                }
                for i in range(17)
            ],
            "max_tokens": 2,
        },
        200,
    ),
    "ggml-org/llama.cpp#4492": (CHAT, {"guided_grammar": 'rout::="route"'}, 400),
    "ggml-org/llama.cpp#3702": (
        CHAT,
        {"guided_regex": "[ab]{1,3}", "typical_p": 0.5, "max_tokens": 5},
        200,
    ),
    "ggml-org/llama.cpp#7133": (
        CHAT,
        {"messages": [{"role": "system"}, *HI], "max_tokens": 2},
        200,
    ),
    "ggml-org/llama.cpp#3550": ("/api/generate", {"prompt": "a", "options": {"num_keep": -9}}, 200),
    "ggml-org/llama.cpp#25284": (CHAT, {"response_format": pattern("(?<=x)+")}, 400),
    "ggml-org/llama.cpp#25283": (CHAT, {"response_format": pattern("(" * 9999 + ")" * 9999)}, 400),
    "huggingface/text-generation-inference#2584": (
        CHAT,
        {"stop": ["a1", "b2", "c3", "d4", "e5", "f6"], "max_tokens": 2},
        200,
    ),
    "pydantic/pydantic-ai#3406": (
        CHAT,
        {
            "messages": [
                *HI,
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                RESULT,
            ],
            "tools": [TOOL],
            "max_tokens": 2,
        },
        200,
    ),
    "abetlen/llama-cpp-python#1438": (
        RAW,
        {"prompt": "write", "echo": True, "max_tokens": 1_000_000},
        200,
    ),
    "BerriAI/litellm#26112": (CHAT, b'{"model": "alpha", "messages": [}', 400),
    "vllm-project/vllm#45273": (
        RESPONSES,
        {
            "input": [
                {"type": "message", "role": "developer", "content": "Be terse."},
                *HI,
                {"type": "reasoning", "summary": [], "content": None},
                {"type": "function_call", "call_id": "c", "name": "now", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "noon"},
            ],
            "tools": [{"type": "function", "name": "now", "parameters": {"type": "object"}}],
            "max_output_tokens": 2,
        },
        200,
    ),
}


@pytest.fixture
def post(scripted_fleet):
    def post(path, body):
        if isinstance(body, dict):
            body = {"model": "alpha", "stream": False, **body}
            if path == CHAT:
                body = {"messages": HI, **body}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        asked = urllib.request.Request(
            scripted_fleet.url + path, data, {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    return post


@pytest.mark.parametrize("report", REPORTS)
def test_one_request_is_answered_as_it_should(post, report):
    path, body, status = REPORTS[report]
    got, told = post(path, body)

    assert (got, bool(told.get("error"))) == (status, status != 200), told


def test_a_prompt_whose_logprobs_are_asked_for_has_them(post):
    """vllm-project/vllm-metal#680: 500, or null for all of them."""
    _, told = post(RAW, {"prompt": "abc", "echo": True, "max_tokens": 1, "logprobs": 1})
    values = told["choices"][0]["logprobs"]["token_logprobs"]

    assert values[0] is None
    assert len(values) > 2
    assert all(isinstance(value, float) for value in values[1:])


def test_an_answer_goes_on_whatever_form_its_beginning_has(post):
    """ggml-org/llama.cpp#14353: continued where it is a string, not where it is a list."""
    sizes = []
    for content in ("Sure, I", [{"type": "text", "text": "Sure, I"}]):
        messages = [*HI, {"role": "assistant", "content": content}]
        _, told = post(CHAT, {"messages": messages, "max_tokens": 1})
        sizes.append(told["usage"]["prompt_tokens"])

    assert sizes[0] == sizes[1]


def test_an_answer_has_its_content_and_its_usage(post):
    """ollama/ollama#13371: null, and no tokens, with status 200."""
    _, told = post(CHAT, {})

    assert told["choices"][0]["message"]["content"] == "Hello from model alpha ok!"
    assert told["usage"]["completion_tokens"] > 0


def test_constrained_and_free_requests_run_beside_each_other(post):
    """huggingface/text-generation-inference#1601, #1643, #1661: both failed."""
    answers = []

    def ask(wish):
        answers.append(post(CHAT, {**wish, "max_tokens": 30})[0])

    wishes = [{"response_format": schema({"enum": ["a", "b"]})}, {}] * 4
    threads = [threading.Thread(target=ask, args=(wish,)) for wish in wishes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [200] * 8


def test_a_call_is_answered_by_the_id_of_what_asked_for_it(post):
    """ogx-ai/ogx#2522: 400 where only the result is sent, and the id of the response."""
    tool = {"type": "function", "name": "now", "parameters": {"type": "object"}}
    _, first = post(RESPONSES, {"input": "hi", "tools": [tool], "tool_choice": "required"})
    call = next(item for item in first["output"] if item["type"] == "function_call")
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "noon"}
    status, _ = post(RESPONSES, {"input": [result], "previous_response_id": first["id"]})

    assert status == 200


def test_text_of_messages_is_streamed_as_text(scripted_fleet):
    """BerriAI/litellm#29286: as pieces of a call's arguments."""
    body = {"model": "alpha", "messages": HI, "max_tokens": 50, "stream": True}
    asked = urllib.request.Request(
        scripted_fleet.url + "/v1/messages",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]

    assert {delta["type"] for delta in deltas} == {"text_delta"}
    assert "".join(delta["text"] for delta in deltas) == "Hello from model alpha ok!"


@pytest.mark.parametrize(
    "sent", [b"", b"\x16\x03\x01\x02\0\1", b"GET / HTTP/9\r\n\r\n", b"GET / H"]
)
@pytest.mark.parametrize("is_reset", [False, True])
def test_connections_that_ask_for_nothing_leave_nothing(scripted_fleet, sent, is_reset):
    """Kludex/uvicorn#1199, #1226, Soju06/codex-lb#2041, vllm-project/vllm#44486."""
    where = urllib.parse.urlsplit(scripted_fleet.url)
    for _ in range(50):
        with socket.create_connection((where.hostname, where.port)) as connection:
            if is_reset:
                lingers = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingers)
            connection.sendall(sent)
    gateway = scripted_fleet.child("gateway")

    def left():
        return [
            one
            for one in gateway.net_connections("tcp")
            if one.laddr.port == where.port and one.status == psutil.CONN_CLOSE_WAIT
        ]

    until(lambda: not left())
