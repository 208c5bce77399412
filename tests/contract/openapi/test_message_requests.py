"""Requests, by Anthropic's document: its examples, and every property that its schemas name."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
import pytest

from services.backplane.errors import FleetError
from services.gateway.dialects.anthropic_messages import decode
from tests.clients.scripted_neuron import MODEL
from tests.contract.openapi.document import Document
from tests.contract.openapi.messages_api import CheckedMessages
from tests.contract.openapi.probes import Probe, Prober
from tests.unit.gateway.dialects.answers import HEAD

_HELLO: Final = [{"role": "user", "content": "Hello"}]
_TOOL: Final = {"input_schema": {"type": "object"}}
# So that a tool can be chosen, and effort has something to steer.
BASE: Final[dict[str, Any]] = {
    "tools": [{"name": "first", **_TOOL}, {"name": "second", **_TOOL}],
    "thinking": {"type": "adaptive"},
}
_STEERS_NO_TOKEN: Final = "for the bill, the log or the place"
_AUTOMATIC: Final = "what is alike is cached, asked for or not"
_SHOWN: Final = "every tool is shown from the start, so there is none to be found"
_FOREIGN: Final = "another server's, which alone can read it"
_HISTORY: Final = "what another server did is told in the order in which it was done"
# What changes no answer here, by component and property; `*` stands for every component.
PASSED_OVER: Final[dict[tuple[str, str], str]] = {
    ("*", "cache_control"): _AUTOMATIC,
    ("*", "defer_loading"): _SHOWN,
    ("*", "caller"): "who called in the past; here the model does",
    ("*", "diagnostics"): _STEERS_NO_TOKEN,
    ("*", "inference_geo"): _STEERS_NO_TOKEN,
    ("*", "metadata"): _STEERS_NO_TOKEN,
    ("*", "speed"): _STEERS_NO_TOKEN,
    ("*", "user_profile_id"): _STEERS_NO_TOKEN,
    ("*", "context_management"): "the answer tells that no edit was applied",
    ("*", "encrypted_content"): _FOREIGN,
    ("*", "encrypted_stdout"): _FOREIGN,
    ("RequestTextBlock", "citations"): "of an answer in the past; its text says what was cited",
    ("Tool", "type"): "null and custom mean the same",
    ("Tool", "eager_input_streaming"): "arguments are always sent as they are generated",
    ("TextEditor_20250728", "max_characters"): "the client cuts what it shows",
    **{
        (f"ToolSearchTool{kind}_20251119", name): _SHOWN
        for kind in ("BM25", "Regex")
        for name in ("type", "strict", "allowed_callers")
    },
    **{
        (f"Request{kind}ToolResultBlock", "tool_use_id"): _HISTORY
        for kind in (
            "Advisor", "BashCodeExecution", "CodeExecution", "MCP", "TextEditorCodeExecution",
            "ToolSearch", "WebFetch", "WebSearch",
        )
    },
    ("RequestServerToolUseBlock", "id"): _HISTORY,
    ("RequestMCPToolUseBlock", "id"): _HISTORY,
}  # fmt: skip
# A count is of the prompt, as it is where nothing is said of thinking.
NOT_COUNTED: Final = frozenset(
    {
        ("JsonOutputFormat", "schema"), ("OutputConfig", "effort"),
        ("ThinkingConfigEnabled", "budget_tokens"), ("ThinkingConfigEnabled", "display"),
        ("ThinkingConfigAdaptive", "display"),
    }
)  # fmt: skip


class Listed:
    """The list of what is passed over, and which of its entries were met."""

    def __init__(self) -> None:
        self.met: set[tuple[str, str]] = set()

    def has(self, component: str, name: str) -> bool:
        for one in ((component, name), ("*", name)):
            if one in PASSED_OVER:
                self.met.add(one)
                return True
        return False


def outcome(body: dict[str, Any], *, beta: bool, counts: bool) -> tuple[str, Any]:
    """What the reader makes of a body: a canonical request, or a refusal that names a field."""
    head = msgspec.structs.replace(HEAD, headers={"anthropic-beta": "x"} if beta else {})
    raw = msgspec.json.encode(body)
    try:
        if counts:
            count = decode.decode_count(raw, head)
            return "taken", (count.request.SerializeToString(), count.edits_context)
        ask = decode.decode(raw, head)
    except FleetError as error:
        return "refused", error.field or ""
    (request,) = ask.requests
    return "taken", (ask.model, ask.stream, request.SerializeToString(), ask.detail)


def fault(probe: Probe, listed: Listed, *, beta: bool, counts: bool) -> str | None:
    """What is wrong with how a property is read."""
    found = [outcome(body, beta=beta, counts=counts) for body in probe.bodies]
    refused = [field for kind, field in found if kind == "refused"]
    if refused:
        fits = all(_names(field, probe.where) for field in refused)
        return None if fits else f"{probe.where}: refused as {refused}"
    if len(set(found)) > 1 or listed.has(probe.component, probe.name):
        return None
    if counts and (probe.component, probe.name) in NOT_COUNTED:
        return None
    return f"{probe.component}.{probe.name} at {probe.where}: dropped"


def _names(field: str, where: str) -> bool:
    """Whether a refusal names a property: it, what holds it, or the `type` beside it."""
    beside = field.removesuffix("type")
    return f"{where}.".startswith((f"{field}.", beside if beside.endswith(".") else f"{field}."))


def test_no_property_is_dropped(anthropic_document: Document) -> None:
    """Each changes the request, or is refused by its name, or is listed as changing nothing."""
    listed = Listed()
    probed: set[tuple[str, str]] = set()
    for beta, counts in itertools.product((False, True), repeat=2):
        name = ("Beta" if beta else "") + (
            "CountMessageTokensParams" if counts else "CreateMessageParams"
        )
        prober = Prober(anthropic_document, listed.has)
        schema = anthropic_document.component(name)
        probes = list(prober.probes(schema, lambda value: BASE | value))
        faults = [fault(one, listed, beta=beta, counts=counts) for one in probes]
        wrong = [one for one in faults if one]
        assert not wrong, f"{name}: {wrong}"
        probed |= {(one.component, one.name) for one in probes}
    assert len(probed) > 150
    assert listed.met == set(PASSED_OVER), "an entry that nothing needs is to be deleted"


def test_a_reader_that_drops_a_property_is_found() -> None:
    """The check itself is checked: `temperature` is taken, and a body without effect is seen."""
    probe = Probe("temperature", "CreateMessageParams", "temperature", (_body(), _body()))

    told = fault(probe, Listed(), beta=False, counts=False)

    assert told == "CreateMessageParams.temperature at temperature: dropped"
    other = probe._replace(bodies=(_body(), _body(temperature=0.5)))
    assert fault(other, Listed(), beta=False, counts=False) is None
    elsewhere = probe._replace(bodies=(_body(max_tokens=-1),))
    assert "refused as" in (fault(elsewhere, Listed(), beta=False, counts=False) or "")


def _body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]} | fields


def examples(document: Document, component: str) -> Iterator[tuple[str, Any]]:
    """The property, and the value, of every example in a schema's description, and the whole."""
    schema = document.raw["components"]["schemas"][component]
    if "example" in schema:
        yield "", schema["example"]
    for name, each in schema["properties"].items():
        for block in re.findall(r"```json\n(.*?)```", each.get("description", ""), re.DOTALL):
            # one of them has a comma behind its last element
            yield name, json.loads(re.sub(r",\s*([\]}])", r"\1", block))


def bodies_of(examples: Iterable[tuple[str, Any]]) -> Iterator[dict[str, Any]]:
    """A request of every example; blocks of a tool loop stand below `tools`, behind its tools."""
    for name, value in examples:
        values: list[Any] = value if isinstance(value, list) else [value]
        if not name:
            yield value
        elif name == "messages":
            yield {"messages": values}
        elif values[0].get("type") == "tool_use":
            yield {"messages": [*_HELLO, {"role": "assistant", "content": values}]}
        elif values[0].get("type") == "tool_result":
            yield {"messages": [{"role": "user", "content": values}]}
        else:
            yield {name: value}


@pytest.mark.parametrize(
    ("path", "component"),
    [
        ("/v1/messages", "CreateMessageParams"),
        ("/v1/messages/count_tokens", "CountMessageTokensParams"),
    ],
)
def test_every_example_is_served(
    messages_api: CheckedMessages, anthropic_document: Document, path: str, component: str
) -> None:
    beta = "Beta" if messages_api.is_beta else ""
    bodies = list(bodies_of(examples(anthropic_document, beta + component)))

    for body in bodies:
        needed = {"messages": _HELLO} | ({"max_tokens": 64} if path == "/v1/messages" else {})
        messages_api.post(path, needed | body | {"model": MODEL})

    assert len(bodies) >= 8
