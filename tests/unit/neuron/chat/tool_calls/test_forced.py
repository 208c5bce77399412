import itertools
import json

import pytest

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError, Reason
from services.neuron.chat.stream import ToolCallPiece
from services.neuron.chat.tool_calls import forced, formats
from services.neuron.chat.tool_calls.parsing.calls import Calls
from tests.unit.neuron.chat.schemas.accepting import accepts, complaint

STRING, INTEGER = {"type": "string"}, {"type": "integer"}
LISTED = {"type": "object", "properties": {"a": INTEGER}, "required": ["a"]}


def force(*tools, strict=False):
    """The forced call of tools that are given as (name, schema of the arguments)."""
    chat = conversation.Chat()
    for name, parameters in tools:
        chat.tools.add(name=name, parameters_schema_json=json.dumps(parameters), strict=strict)
    chat.tool_choice.required.SetInParent()
    return forced.forced_call(chat, formats.tools_of(chat))


def allows(arguments, *tools):
    """Whether a call of the first tool may have these arguments."""
    call = json.dumps({"name": tools[0][0], "arguments": arguments})
    return accepts(force(*tools).schema, call)


def holding(**properties):
    return {"type": "object", "properties": properties, "required": list(properties)}


def test_arguments_that_no_schema_lists_are_not_made_up():
    assert allows({"a": 1}, ("add", LISTED))
    assert not allows({"a": 1, "b": 2}, ("add", LISTED))


@pytest.mark.parametrize(
    "more",
    [
        {"additionalProperties": True},
        {"additionalProperties": STRING},
        {"patternProperties": {"^b": STRING}},
        {"anyOf": [{"properties": {"b": STRING}, "required": ["b"]}]},
    ],
)
def test_a_schema_that_allows_more_allows_it(more):
    assert allows({"a": 1, "b": "x"}, ("add", LISTED | more))


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        None,
        True,
        {"type": "object"},
        {"properties": {}},
        {"properties": None, "required": None},
    ],
)
def test_a_tool_without_parameters_gets_none(parameters):
    assert allows({}, ("now", parameters))
    assert not allows({"a": 1}, ("now", parameters))


@pytest.mark.parametrize("nulls", ["$defs", "definitions", "required", "allOf", "type", "$ref"])
def test_null_is_as_if_left_out(nulls):
    own = {"type": "object", "properties": {"a": INTEGER | {nulls: None}}, nulls: None}

    assert allows({"a": 1}, ("add", own))


def test_tools_keep_their_own_definitions_of_one_name():
    def tool(name, **item):
        item = holding(**item) | {"additionalProperties": False}
        return name, holding(item={"$ref": "#/$defs/Item"}) | {"$defs": {"Item": item}}

    tools = [tool("order", count=INTEGER), tool("label", title=STRING)]

    for one, other in itertools.permutations(tools):
        right = {"order": {"count": 1}, "label": {"title": "x"}}
        assert allows({"item": right[one[0]]}, one, other)
        assert not allows({"item": right[other[0]]}, one, other)


def test_a_reference_to_the_root_means_the_tools_own():
    node = {
        "type": "object",
        "properties": {"v": INTEGER, "next": {"$ref": "#"}},
        "required": ["v"],
    }

    assert allows({"v": 1, "next": {"v": 2, "next": {"v": 3}}}, ("add", node))
    assert not allows({"v": 1, "next": {"name": "add", "arguments": {}}}, ("add", node))


@pytest.mark.parametrize(
    ("reference", "beside"),
    [
        ("#/properties/a", {}),
        ("#/components/schemas/A", {"components": {"schemas": {"A": INTEGER}}}),
        ("#/definitions/A~1b", {"definitions": {"A/b": INTEGER}}),
        ("#/$defs/A%20b", {"$defs": {"A b": INTEGER}}),
        ("#/$defs/list/0", {"$defs": {"list": [INTEGER]}}),
        ("#here", {"$defs": {"A": INTEGER | {"$anchor": "here"}}}),
        ("#here", {"definitions": {"A": INTEGER | {"$id": "#here"}}}),
        ("other.json", {"$id": "https://x.org/a.json", "$defs": {"A": INTEGER | {"$id": "other.json"}}}),
        ("https://x.org/a.json#/properties/a", {"$id": "https://x.org/a.json"}),
    ],
)  # fmt: skip
def test_references_lead_where_they_say(reference, beside):
    own = holding(a=INTEGER, b={"$ref": reference}) | beside

    assert allows({"a": 1, "b": 2}, ("pair", own))
    assert not allows({"a": 1, "b": "x"}, ("pair", own))


def test_a_root_that_is_a_reference_is_held_to_it():
    own = {"$ref": "#/$defs/Args", "$defs": {"Args": LISTED}}

    assert allows({"a": 1}, ("add", own))
    assert not allows({"a": 1, "b": 2}, ("add", own))


RELAXED = [
    ("propertyNames", {"type": "object", "propertyNames": {"maxLength": 3}}, {"x": "y"}),
    ("uniqueItems", {"type": "array", "items": STRING, "uniqueItems": True}, ["x"]),
    ("not", {"type": "string", "not": {"enum": ["x"]}}, "y"),
    ("format", {"type": "string", "format": "int64"}, "1"),
    ("oneOf", {"oneOf": [STRING, {"type": "string", "maxLength": 3}]}, "abcd"),
    ("pattern", {"type": "string", "pattern": "^(?!x).*$"}, "y"),
    ("pattern", {"type": "string", "pattern": r"\bword\b"}, "word"),
    ("$ref", {"$ref": "#/$defs/Nowhere"}, "anything"),
    ("$ref", {"$ref": "https://elsewhere.org/a.json"}, "anything"),
    ("$ref", {"$ref": "#/properties/v"}, "anything"),
    ("if", {"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"a": 1}),
    ("contains", {"type": "array", "contains": STRING}, ["x"]),
    ("type", {"type": "any"}, "x"),
    ("maxLength", {"type": "string", "minLength": 3, "maxLength": 2}, "xxx"),
    ("enum", {"type": "string", "enum": [1]}, "x"),
    ("required", {"type": "object", "required": ["b"], "additionalProperties": False}, {}),
    (
        "additionalProperties",
        {"allOf": [holding(a=STRING) | {"additionalProperties": False}, holding(b=STRING)]},
        {"a": "x", "b": "y"},
    ),
]


@pytest.mark.parametrize(("keyword", "schema", "value"), RELAXED)
def test_what_cannot_be_enforced_is_left_out_and_told(keyword, schema, value):
    call = force(("other", LISTED), ("culprit", holding(v=schema)))
    written = json.dumps({"name": "culprit", "arguments": {"v": value}})

    assert accepts(call.schema, written)
    assert {"culprit": f"not held to {keyword} of the tool's schema"} == call.repairs
    parser = call.parser(Calls(lambda: "id"), formats.tools_of(conversation.Chat()))
    first = next(piece for piece in parser.feed(written) if isinstance(piece, ToolCallPiece))
    assert ("culprit", call.repairs["culprit"]) == (first.name, first.repair)


@pytest.mark.parametrize(
    ("keyword", "schema"), [(one[0], one[1]) for one in RELAXED if one[0] not in {"oneOf", "additionalProperties"}]
)  # fmt: skip
def test_a_strict_tool_is_refused_by_name_and_keyword(keyword, schema):
    with pytest.raises(FleetError, match=f"'culprit'.*'{keyword}'".replace("$", r"\$")) as caught:
        force(("other", LISTED), ("culprit", holding(v=schema)), strict=True)

    assert Reason.BAD_CONSTRAINT is caught.value.reason
    assert "tools.1.parameters_schema_json" == caught.value.field


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [STRING, {"type": "null"}]},
        {"oneOf": [holding(kind={"const": "a"}), holding(kind={"enum": ["b", "c"]})]},
        {"anyOf": [{"not": {}}, STRING]},
        {"type": "array", "items": STRING, "uniqueItems": False},
        {"type": "object", "propertyNames": STRING, "additionalProperties": STRING},
        {"type": "object", "unevaluatedProperties": True},
        {"type": "string", "title": 3, "x-order": 1, "$comment": "c", "examples": None},
        {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
    ],
)
def test_what_asks_for_nothing_more_is_no_reason_to_say_anything(schema):
    call = force(("f", holding(v=schema)))

    assert {} == call.repairs
    assert not complaint(call.schema)


def test_required_arguments_that_are_not_listed_can_be_given():
    own = {"type": "object", "properties": {"a": INTEGER}, "required": ["a", "b"]}

    assert allows({"b": [1], "a": 1}, ("f", own)) or allows({"a": 1, "b": [1]}, ("f", own))


def test_a_tuple_of_draft_7_is_one():
    own = holding(v={"type": "array", "items": [STRING, INTEGER], "additionalItems": False})

    assert allows({"v": ["x", 1]}, ("f", own))
    assert not allows({"v": ["x", "y"]}, ("f", own))


def test_a_schema_without_a_bottom_is_refused_by_name():
    deep: dict[str, object] = {"type": "string"}
    for _ in range(400):
        deep = {"allOf": [deep]}

    with pytest.raises(FleetError, match="culprit"):
        force(("culprit", holding(v=deep)))
