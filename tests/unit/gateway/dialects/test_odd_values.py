"""Any value anywhere in a body: it is served, or refused in words, and never a bug."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from services.backplane.errors import FleetError
from services.gateway.dialects.anthropic_messages.routes import AnthropicCount, AnthropicMessages
from services.gateway.dialects.dialect import DecodedRequest, Dialect
from services.gateway.dialects.lookup import Lookup
from services.gateway.dialects.ollama.listings import OllamaEmbed, OllamaEmbedOne, OllamaShow
from services.gateway.dialects.ollama.routes import OllamaChat, OllamaGenerate
from services.gateway.dialects.openai_chat.routes import OpenAIChat
from services.gateway.dialects.openai_completions.routes import OpenAICompletions
from services.gateway.dialects.openai_embeddings.routes import OpenAIEmbeddings
from services.gateway.dialects.openai_responses.compaction import Compaction
from services.gateway.dialects.openai_responses.routes import OpenAIResponses
from services.gateway.dialects.openai_responses.store.history import History
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from services.gateway.dialects.openai_responses.stored import CountInput
from tests.unit.gateway.dialects.answers import HEAD, Answer, Segment, collect, events_of
from tests.unit.gateway.dialects.every_field import BODIES
from tests.unit.gateway.dialects.fixed_fleet import FixedFleet

DIALECTS: dict[str, type[Dialect]] = {
    "chat": OpenAIChat,
    "completion": OpenAICompletions,
    "messages": AnthropicMessages,
    "ollama chat": OllamaChat,
    "ollama generate": OllamaGenerate,
    "ollama raw": OllamaGenerate,
}
LOOKUPS: dict[str, type[Lookup]] = {
    "embeddings": OpenAIEmbeddings,
    "ollama embed": OllamaEmbed,
    "ollama embeddings": OllamaEmbedOne,
    "ollama show": OllamaShow,
}
# Nested as deeply as the decoder takes it, and deeper than what reads it by recursion would bear.
DEEP = "[" * 800 + "]" * 800
DEEP_BLOCK = '[{"type":"document","source":{"type":"content","content":' * 240 + '"t"' + "}}]" * 240
ODD = [
    "null", "true", "0", "-1", "1.5", "1e308", "1000000000000000000", "-9223372036854775809",
    "18446744073709551616", "1" + "0" * 60, '""', '"x"', '"\\u0000"', '"' + "y" * 300 + '"',
    '"\\ud83d"', "[]", "[null]", "[1]", '["x"]', "[[]]", '[""]', "[{}]", "{}", '{"type":null}',
    '{"type":["function"]}', '{"type":{}}', '{"type":1}', '{"x":null}', '{"":1}', DEEP, DEEP_BLOCK,
]  # fmt: skip
MARK = "\ue000here\ue000"
ANSWER = Answer(
    (Segment("reasoning", "hm"), Segment("text", "hi"), Segment("tool_call", "{}", "f"))
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a body."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, one in value.items():
            yield from paths(one, (*path, key))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from paths(one, (*path, index))


def odd_bodies(body: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """The body with each of its values replaced by each odd one, in turn, and what was replaced."""
    yield "nothing", json.dumps(body).encode()
    for path in paths(body):
        changed = copy.deepcopy(body)
        place: Any = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = MARK
        text = json.dumps(changed)
        for odd in ODD:
            yield f"{path} = {odd[:40]}", text.replace(json.dumps(MARK), odd).encode()


def serve(dialect: Dialect, body: bytes) -> None:
    """Decodes a request and words both of its answers."""
    decoded = dialect.decode(body, HEAD)
    events = events_of(ANSWER)
    for request in decoded.requests:
        request.SerializeToString()
    dialect.body(decoded, HEAD, [collect(ANSWER, events) for _ in decoded.requests])
    projector = dialect.projector(decoded, HEAD)
    projector.open()
    for choice in range(len(decoded.requests)):
        for event in events:
            projector.event(choice, event)
        projector.finish(choice, ANSWER.finished())


def check(serve: Callable[[bytes], object], body: dict[str, Any]) -> None:
    failed: list[str] = []
    for what, odd in odd_bodies(body):
        try:
            serve(odd)
        except FleetError as refused:
            if refused.reason.row.http >= 500:
                failed.append(f"{what}: {refused}")
        except RecursionError:
            pass  # the endpoint's answer to it is that the body is nested too deeply
        except Exception as bug:  # noqa: BLE001 - any is a bug
            failed.append(f"{what}: {type(bug).__name__}: {bug}")
    assert not failed, f"{len(failed)}: " + "\n".join(failed[:12])


@pytest.mark.parametrize("name", [one for one in BODIES if one.split(",")[0] in DIALECTS])
def test_a_generation_with_any_value_anywhere_is_served_or_refused(name: str) -> None:
    dialect = DIALECTS[name.split(",", maxsplit=1)[0]]()

    check(lambda body: serve(dialect, body), BODIES[name])


@pytest.mark.parametrize("name", ["responses", "responses, allowed tools"])
def test_a_response_with_any_value_anywhere_is_served_or_refused(
    store: ResponsesStore, name: str
) -> None:
    dialect = OpenAIResponses(store)

    check(lambda body: serve(dialect, body), BODIES[name])


def test_a_compaction_with_any_value_anywhere_is_served_or_refused(store: ResponsesStore) -> None:
    dialect = Compaction(History(store))

    check(lambda body: dialect.decode(body, HEAD), BODIES["responses, allowed tools"])


def look_up(lookup: Lookup, body: bytes) -> None:
    answering: Coroutine[Any, Any, bytes] = lookup.answer(body, HEAD, FixedFleet())
    with contextlib.suppress(StopIteration):
        answering.send(None)  # nothing in it waits


@pytest.mark.parametrize("name", LOOKUPS)
def test_a_lookup_with_any_value_anywhere_is_answered_or_refused(name: str) -> None:
    lookup = LOOKUPS[name]()

    check(lambda body: look_up(lookup, body), BODIES[name])


def test_a_count_with_any_value_anywhere_is_answered_or_refused(store: ResponsesStore) -> None:
    check(lambda body: look_up(AnthropicCount(), body), BODIES["messages"])
    check(lambda body: look_up(CountInput(store), body), BODIES["responses"])


def canonical(decoded: DecodedRequest) -> Any:
    """What is made of a request; schemas compared by what they say."""

    def read(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: read(one) for key, one in value.items()}
        if isinstance(value, list):
            return [read(one) for one in value]
        if isinstance(value, str) and value.startswith("{"):
            return json.loads(value)
        return value

    return [read(MessageToDict(request)) for request in decoded.requests], decoded.stream


def outcome(dialect: Dialect, body: dict[str, Any]) -> Any:
    try:
        return canonical(dialect.decode(json.dumps(body).encode(), HEAD))
    except FleetError as refused:
        return refused.reason


@pytest.mark.parametrize("name", [one for one in BODIES if one not in LOOKUPS])
def test_null_for_a_list_or_map_is_as_if_left_out(store: ResponsesStore, name: str) -> None:
    """As typed clients write what is empty."""
    kind = name.split(",", maxsplit=1)[0]
    dialect: Dialect = OpenAIResponses(store, new_id=lambda: "resp_0")
    if kind != "responses":
        dialect = DIALECTS[kind]()
    for path in paths(BODIES[name]):
        null, absent = copy.deepcopy(BODIES[name]), copy.deepcopy(BODIES[name])
        there, gone = null, absent
        for step in path[:-1]:
            there, gone = there[step], gone[step]
        is_property = path[-2:-1] == ("properties",)  # null there allows anything
        if is_property or not isinstance(path[-1], str):
            continue
        if not isinstance(there[path[-1]], dict | list):
            continue
        there[path[-1]] = None
        del gone[path[-1]]

        assert outcome(dialect, null) == outcome(dialect, absent), path
