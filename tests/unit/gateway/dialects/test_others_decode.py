"""Legacy completions, embeddings, model listings and the Ollama API."""

from __future__ import annotations

import base64
import dataclasses
import json
import struct
from collections.abc import Sequence
from typing import Any

import pytest

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.dialect import Head, ListedModel, Lookup
from services.gateway.dialects.models.routes import ModelList, OneModel
from services.gateway.dialects.ollama import listings
from services.gateway.dialects.ollama.decode import keep_alive
from services.gateway.dialects.ollama.routes import OllamaGenerate
from services.gateway.dialects.openai_completions.routes import OpenAICompletions
from services.gateway.dialects.openai_embeddings.routes import OpenAIEmbeddings
from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.answers import HEAD, Answer, Segment, collect, events_of
from tests.unit.gateway.dialects.openai_chat.test_decode import PIXEL, parts

MODELS = [
    ListedModel(
        model="big",
        aliases=("large",),
        created_unix_seconds=1_700_000_000,
        capabilities=(model_pb2.CAPABILITY_CHAT, model_pb2.CAPABILITY_TOOLS),
        max_context_tokens=8192,
        price=registry.Price(input=0.0),
        is_loaded=True,
        locations=(("n1", model_pb2.INSTANCE_STATE_READY),),
        feasible_neurons=("n1", "n2"),
    ),
    ListedModel(
        model="org/cold",
        locations=(("n2", model_pb2.INSTANCE_STATE_LOADING),),
    ),
]


class _Fleet:
    """Answers look-ups out of nothing but the request."""

    async def count_tokens(self, request: neuron.CountTokensRequest) -> neuron.CountTokensResponse:
        return neuron.CountTokensResponse(tokens=len(request.chat.messages))

    async def embed(self, request: neuron.EmbedRequest) -> neuron.EmbedResponse:
        vectors = [neuron.Embedding(values=[0.5, -1.0]) for _ in request.inputs]
        return neuron.EmbedResponse(embeddings=vectors, prompt_tokens=7)

    def models(self) -> Sequence[ListedModel]:
        return MODELS


async def look_up(lookup: Lookup, body: Any = None, head: Head = HEAD) -> Any:
    raw = b"" if body is None else json.dumps(body).encode()
    return json.loads(await lookup.answer(raw, head, _Fleet()))


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("hi", ["hi"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        (["a", [5]], ["a", [5]]),
    ],
)
def test_prompts_of_every_shape(prompt: Any, wanted: list[Any]) -> None:
    _, decoded = decoding.completion(prompt=prompt)

    assert wanted == [
        one.text if one.WhichOneof("prompt") == "text" else list(one.token_ids.ids)
        for one in decoded.requests
    ]


def test_a_completion_has_the_apis_defaults() -> None:
    _, decoded = decoding.completion(echo=True, logprobs=2)
    (request,) = decoded.requests

    assert (16, True, 2) == (request.stop.max_tokens, request.echo_prompt, request.top_logprobs)


def test_choices_are_counted_prompt_by_prompt() -> None:
    dialect, decoded = decoding.completion(prompt=["a", "b"], n=2)
    answer = Answer((Segment("text", "x"),))
    collected = collect(answer, events_of(answer))

    found = json.loads(dialect.body(decoded, HEAD, [collected] * 4))

    assert [0, 1, 2, 3] == [one["index"] for one in found["choices"]]
    assert (40, 36) == (found["usage"]["prompt_tokens"], found["usage"]["completion_tokens"])


def _token(text: str, logprob: float = -1.0) -> generation.TokenLogprob:
    return generation.TokenLogprob(token_id=1, text=text.encode(), logprob=logprob)


def _echoed(first: str = "he", **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """One echo, streamed and whole: the prompt's own log probabilities come without tokens."""
    dialect, decoded = decoding.completion(echo=True, logprobs=1, **fields)
    tokens = [_token(first, 0), _token("llo"), _token(" you", -2.5)]
    tokens[2].alternatives.append(generation.TokenLogprob(text=b" me", logprob=-3))
    delta = generation.TextDelta(text=" you", token_ids=[7], logprobs=tokens)
    event = generation.GenerateResponse(text=delta)
    answer = Answer((), generation.FINISH_REASON_MAX_TOKENS)

    told = dialect.projector(decoded, HEAD).event(0, event)
    whole = json.loads(dialect.body(decoded, HEAD, [collect(answer, [event])]))
    return json.loads(told.removeprefix(b"data: "))["choices"][0], whole["choices"][0]


def test_an_echo_tells_the_prompt_and_its_log_probabilities() -> None:
    for choice in _echoed():
        assert "hello you" == choice["text"]
        assert {
            "tokens": ["he", "llo", " you"],
            "token_logprobs": [None, -1.0, -2.5],
            "top_logprobs": [None, {}, {" me": -3.0}],
            "text_offset": [0, 2, 5],
        } == choice["logprobs"]


def test_an_echo_alone_tells_nothing_else() -> None:
    for choice in _echoed(max_tokens=0):
        assert "hello" == choice["text"]
        assert ["he", "llo"] == choice["logprobs"]["tokens"]


def test_an_echo_of_token_ids_is_told_by_its_tokens() -> None:
    for choice in _echoed(prompt=[5, 6]):
        assert "hello you" == choice["text"]
        assert ["he", "llo", " you"] == choice["logprobs"]["tokens"]


def test_a_token_that_the_model_puts_before_a_prompt_is_no_part_of_its_text() -> None:
    for choice in _echoed(first="<s>", prompt="llo"):
        assert "llo you" == choice["text"]
        assert [0, 0, 3] == choice["logprobs"]["text_offset"]


def test_an_echo_is_streamed_once() -> None:
    dialect, decoded = decoding.completion(echo=True)
    projector = dialect.projector(decoded, HEAD)

    told = projector.text(0, " y", 1) + projector.text(0, "ou", 1)

    assert b'"text":"hello y"' in told
    assert b'"text":"ou"' in told


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"suffix": "x"}, "suffix", Reason.UNSUPPORTED_FIELD),
        ({"best_of": 3}, "best_of", Reason.UNSUPPORTED_FIELD),
        ({"prompt": []}, "prompt", Reason.BAD_REQUEST),
        ({"prompt": [1, "a"]}, "prompt.0", Reason.BAD_REQUEST),
        ({"prompt": [[]]}, "prompt.0", Reason.BAD_REQUEST),
        ({"prompt": [True]}, "prompt.0", Reason.BAD_REQUEST),
        ({"max_tokens": 0}, "max_tokens", Reason.BAD_REQUEST),
        ({"logprobs": True}, "logprobs", Reason.BAD_REQUEST),
        ({"messages": []}, "messages", Reason.BAD_REQUEST),
    ],
)
def test_a_bad_completion_is_refused(fields: dict[str, Any], field: str, reason: Reason) -> None:
    with pytest.raises(FleetError) as raised:
        decoding.completion(**fields)

    assert (field, reason) == (raised.value.field, raised.value.reason)


async def test_embeddings_as_numbers_and_packed() -> None:
    plain = await look_up(OpenAIEmbeddings(), {"model": "m", "input": ["a", "b"]})
    body = {"model": "m", "input": [[1, 2], [3]], "encoding_format": "base64", "dimensions": 2}
    packed = await look_up(OpenAIEmbeddings(), body)

    assert [[0.5, -1.0], [0.5, -1.0]] == [one["embedding"] for one in plain["data"]]
    assert {"prompt_tokens": 7, "total_tokens": 7} == plain["usage"]
    raw = base64.b64decode(packed["data"][1]["embedding"])
    assert (0.5, -1.0) == struct.unpack("<2f", raw)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "m"}, "input"),
        ({"model": "m", "input": ""}, "input"),
        ({"model": "m", "input": []}, "input"),
        ({"model": "m", "input": ["a", ""]}, "input.1"),
        ({"model": "m", "input": [["a"]]}, "input.0"),
        ({"model": "m", "input": ["x"] * 2049}, "input"),
        ({"model": "m", "input": "x", "encoding_format": "hex"}, "encoding_format"),
        ({"model": "m", "input": "x", "dimensions": 0}, "dimensions"),
    ],
)
async def test_a_bad_embedding_request_is_refused(body: Any, field: str) -> None:
    with pytest.raises(FleetError) as raised:
        await look_up(OpenAIEmbeddings(), body)

    assert field == raised.value.field


async def test_models_in_the_openai_shape() -> None:
    found = await look_up(ModelList())

    assert ["big", "org/cold", "large"] == [one["id"] for one in found["data"]]
    big, cold, alias = found["data"]
    assert (8192, {"context": 8192}, "loaded") == (
        big["max_model_len"],
        big["limit"],
        big["status"],
    )
    assert {"input": 0.0} == big["cost"], "free is not unknown"
    assert [{"neuron": "n2", "status": "loading"}] == cold["locations"]
    assert "loading" == cold["status"]
    assert "limit" not in cold, "unknown is not 0"
    assert "cost" not in cold
    assert alias["max_model_len"] == big["max_model_len"]


async def test_models_in_the_anthropic_shape() -> None:
    head = dataclasses.replace(HEAD, headers={"anthropic-version": "2023-06-01"})

    page = await look_up(ModelList(), head=dataclasses.replace(head, query={"limit": "2"}))
    rest = await look_up(
        ModelList(), head=dataclasses.replace(head, query={"after_id": page["last_id"]})
    )

    assert (["big", "org/cold"], True) == ([one["id"] for one in page["data"]], page["has_more"])
    assert (["large"], False) == ([one["id"] for one in rest["data"]], rest["has_more"])
    assert "2023-11-14T22:13:20Z" == page["data"][0]["created_at"]
    assert {"type", "id", "display_name", "created_at"} <= set(page["data"][0])


async def test_a_model_with_a_slash_is_found() -> None:
    head = dataclasses.replace(HEAD, path={"model": "org/cold"})

    assert "org/cold" == (await look_up(OneModel(), head=head))["id"]


async def test_an_unknown_model_is_not() -> None:
    head = dataclasses.replace(HEAD, path={"model": "nope"})

    with pytest.raises(FleetError) as raised:
        await look_up(OneModel(), head=head)
    assert Reason.MODEL_UNKNOWN is raised.value.reason
    assert "model_not_found" == json.loads(OneModel().error(raised.value, head))["error"]["code"]


def test_an_ollama_chat() -> None:
    _, decoded = decoding.ollama(
        model="m:latest",
        messages=[
            {"role": "system", "content": "s"},
            {"role": "user", "content": "look", "images": [PIXEL]},
            {
                "role": "assistant",
                "content": "",
                "thinking": "hm",
                "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}],
            },
            {"role": "tool", "content": "42", "tool_name": "f"},
        ],
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        format={"type": "object"},
        think="low",
        keep_alive="5m",
        options={
            "temperature": 0.5,
            "num_predict": -1,
            "stop": ["x"],
            "num_ctx": 4096,
            "repeat_last_n": 64,
            "seed": 3,
        },
    )
    (request,) = decoded.requests
    _, user, assistant, tool = request.chat.messages

    assert ("m", True, 300) == (decoded.model, decoded.stream, decoded.keep_alive_seconds)
    assert "image/png" == user.parts[1].image.mime_type
    assert ["reasoning", "tool_call"] == [kind for kind, _ in parts(assistant)]
    call, result = assistant.parts[1].tool_call, tool.parts[0].tool_result
    assert (call.call_id, "f") == (result.call_id, result.name)
    assert (0.5, 3) == (request.sampling.temperature, request.sampling.seed)
    assert not request.stop.HasField("max_tokens")
    assert '{"type": "object"}' == request.constraint.json_schema
    assert generation.REASONING_EFFORT_LOW == request.reasoning.effort


def test_an_ollama_prompt() -> None:
    dialect = OllamaGenerate()
    body = {"model": "m", "prompt": "p", "system": "s", "format": "json", "stream": False}
    decoded = decoding.decode(dialect, body)

    assert [conversation.ROLE_SYSTEM, conversation.ROLE_USER] == [
        one.role for one in decoded.requests[0].chat.messages
    ]
    assert "json_object" == decoded.requests[0].constraint.WhichOneof("kind")
    assert not decoded.stream
    raw = decoding.decode(dialect, {"model": "m", "prompt": "p", "raw": True})
    assert "p" == raw.requests[0].text


@pytest.mark.parametrize(("keep", "reason"), [(None, "load"), (0, "unload")])
def test_an_empty_ollama_request_only_loads(keep: int | None, reason: str) -> None:
    dialect = OllamaGenerate()
    decoded = decoding.decode(dialect, {"model": "m", "keep_alive": keep})
    answer = Answer((Segment("text", "x"),), generation.FINISH_REASON_MAX_TOKENS)
    projector = dialect.projector(decoded, HEAD)

    told = projector.text(0, "x", 1) + projector.finish(0, answer.finished())
    body = json.loads(dialect.body(decoded, HEAD, [collect(answer, events_of(answer))]))

    assert 1 == decoded.requests[0].stop.max_tokens
    for found in (json.loads(told), body):
        assert ("", True, reason) == (found["response"], found["done"], found["done_reason"])


@pytest.mark.parametrize(
    ("found", "seconds"),
    [
        (None, None),
        (0, 0),
        (30, 30),
        ("30", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        (-1, 315_360_000),
        ("-1m", 315_360_000),
    ],
)
def test_keep_alive(found: Any, seconds: float | None) -> None:
    assert seconds == keep_alive(found)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"model": ""}, "model"),
        ({"format": "yaml"}, "format"),
        ({"options": {"temperature": "hot"}}, "options.temperature"),
        ({"options": {"mirostat": 2}}, "options.mirostat"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "images": ["!"]}]}, "messages.0.images.0"),
        ({"think": "enormous"}, "think"),
    ],
)
def test_a_bad_ollama_request_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(FleetError) as raised:
        decoding.ollama(**fields)

    assert field == raised.value.field


async def test_ollama_listings() -> None:
    version = (await look_up(listings.OllamaVersion()))["version"]
    tags = await look_up(listings.OllamaTags())
    running = await look_up(listings.OllamaRunning())
    shown = await look_up(listings.OllamaShow(), {"model": "big:latest"})

    assert tuple(int(part) for part in version.split(".")) >= (0, 13, 4), "Codex refuses below"
    assert ["big", "org/cold", "large"] == [one["name"] for one in tags["models"]]
    assert ["big"] == [one["name"] for one in running["models"]]
    assert 8192 == shown["model_info"]["unknown.context_length"]
    assert ["completion", "tools"] == shown["capabilities"]


async def test_pulling_is_answered_honestly() -> None:
    assert {"status": "success"} == await look_up(listings.OllamaPull(), {"model": "big"})
    with pytest.raises(FleetError, match="pulls nothing on request"):
        await look_up(listings.OllamaPull(), {"name": "llama9"})


async def test_ollama_embeddings() -> None:
    many = await look_up(listings.OllamaEmbed(), {"model": "m:latest", "input": ["a", "b"]})
    one = await look_up(listings.OllamaEmbedOne(), {"model": "m", "prompt": "a"})

    assert ("m:latest", 2, 7) == (many["model"], len(many["embeddings"]), many["prompt_eval_count"])
    assert [0.5, -1.0] == one["embedding"]


def test_errors_of_ollama_are_flat() -> None:
    error = FleetError(Reason.MODEL_UNKNOWN, "model 'x' not found")

    assert {"error": "model 'x' not found"} == json.loads(OllamaGenerate().error(error, None))


def test_errors_of_completions_have_the_envelope() -> None:
    error = FleetError(Reason.QUEUE_FULL, "Too many wait.", facts={"queued": "8"})
    told = json.loads(OpenAICompletions().error(error, None))["error"]

    assert ("rate_limit_error", "queue_full", {"queued": "8"}) == (
        told["type"],
        told["code"],
        told["facts"],
    )
