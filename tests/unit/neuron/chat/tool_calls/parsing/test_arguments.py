"""Bare text of calls in tags: which JSON it becomes under which schema."""

import json

import pytest

from services.neuron.chat.tool_calls.parsing.arguments import json_of
from services.neuron.chat.tool_calls.parsing.calls import Tools
from tests.unit.neuron.chat.tool_calls.reading import read

STRING, NULL = {"type": "string"}, {"type": "null"}
DEFS = {"T": STRING, "Loop": {"anyOf": [{"$ref": "#/$defs/Loop"}, STRING]}}
OPTIONAL = [
    {"anyOf": [STRING, NULL]},
    {"oneOf": [STRING, NULL]},
    {"anyOf": [{"anyOf": [{"not": {}}, STRING]}, NULL]},
    {"type": ["string", "null"]},
    {"type": "string", "anyOf": None},
    {"allOf": [STRING]},
    {"$ref": "#/$defs/T"},
    {"anyOf": [{"$ref": "#/$defs/T"}, NULL], "default": None},
    {"allOf": [{"$ref": "#/$defs/T"}], "description": "d"},
    {"allOf": [{"type": ["string", "object"]}, {"type": ["string", "array"]}]},
    {"anyOf": [{"const": "a"}, {"enum": ["b", None]}]},
]


def value(text, schema):
    """What an argument of this schema becomes, in JSON."""
    tools = Tools({"f": {"properties": {"a": schema}, "$defs": DEFS}})
    return json_of(text, tools.kinds("f", "a"))


@pytest.mark.parametrize("schema", OPTIONAL)
@pytest.mark.parametrize("text", ['{"a": 1}', "[1]", "1.10", "5", "true", '"quoted"', "None of it"])
def test_a_string_stays_a_string(schema, text):
    assert text == json.loads(value(text, schema))


@pytest.mark.parametrize(
    ("schema", "text", "meant"),
    [
        ({"anyOf": [STRING, NULL]}, "null", None),
        ({"type": ["string", "null"]}, "None", None),
        (STRING, "null", "null"),
        ({"anyOf": [STRING, {"type": "integer"}]}, "5", 5),
        ({"anyOf": [STRING, {"type": "number"}]}, "1.10", "1.10"),
        ({"anyOf": [STRING, {"type": "number"}]}, "1.5", 1.5),
        ({"anyOf": [STRING, {"type": "object"}]}, '{"a": 1}', {"a": 1}),
        ({"anyOf": [STRING, {"type": "array"}]}, "['a']", ["a"]),
        ({"$ref": "#/$defs/Loop"}, "x", "x"),
        ({}, "1.10", "1.10"),
        ({}, "7", 7),
        ({}, "[1, 2]", [1, 2]),
        ({"type": None}, "7", 7),
        ({"type": [["x"]]}, "7", 7),
        ({"type": "any"}, "7", 7),
        ({"type": "integer"}, "seven", "seven"),
        ({"type": "boolean"}, "True", True),
        ({"enum": [1, 2]}, "1", 1),
        ({"enum": ["1", "2"]}, "1", "1"),
        ({"type": "object"}, "{[]: 1}", "{[]: 1}"),
        ({"type": "object"}, '{"a": "\\ud83d"}', {"a": "\ufffd"}),
        (True, "x", "x"),
    ],
)
def test_what_fits_better_is_taken(schema, text, meant):
    assert meant == json.loads(value(text, schema))


def test_numbers_are_passed_on_as_they_are_written():
    assert "1.10" == value("1.10", {"type": "number"})
    assert '{"v": 1.10}' == value('{"v": 1.10}', {"type": "object"})


@pytest.mark.parametrize(
    "parameters",
    [
        {"$ref": "#/$defs/Args", "$defs": {"Args": {"properties": {"path": STRING}}}},
        {"allOf": [{"properties": {"path": STRING}}, {"properties": {"b": {}}}]},
        {"anyOf": [{"properties": {"path": STRING}}, {"properties": {"path": NULL}}]},
        {"additionalProperties": STRING},
    ],
)
def test_an_argument_is_found_wherever_its_schema_stands(parameters):
    output = "<tool_call><function=f>\n<parameter=path>\n[1]\n</parameter>\n</function></tool_call>"

    _, _, calls, _ = read("qwen_xml", [output], Tools({"f": parameters}))

    assert [("call_0", "f", {"path": "[1]"})] == calls


def test_a_string_that_may_be_null_comes_as_it_is_written():
    tools = Tools({"f": {"properties": {"a": {"anyOf": [STRING, NULL]}}}})
    head = "<tool_call><function=f>\n<parameter=a>\n"
    tail = "\n</parameter>\n</function></tool_call>"

    for text, meant in (("a long text", "a long text"), ("null", None), ("nullable", "nullable")):
        whole = read("qwen_xml", [head + text + tail], tools)
        assert [("call_0", "f", {"a": meant})] == whole[2]
        assert whole == read("qwen_xml", list(head + text + tail), tools)


@pytest.mark.parametrize(
    "odd", [{"properties": []}, {"required": None, "properties": {"a": {}}}, []]
)
def test_odd_schemas_stop_no_answer(odd):
    tools = Tools({"f": odd})

    assert tools.by_arguments(["a"]) in {None, "f"}
    assert not tools.knows("f", "b")
