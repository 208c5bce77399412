import json

import pytest

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError, Reason
from services.neuron.chat.tool_calls import formats
from services.neuron.chat.tool_calls.forced import WHOLE, forced_call
from services.neuron.serving.loosening import loosen
from tests.unit.neuron.chat.schemas.accepting import accepts, complaint

STRING = {"type": "string"}
GOOD = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
# Each has parts that are legal alone and exclude one another: llguidance alone finds it.
CONTRADICTORY = [
    ("pattern", {"type": "string", "pattern": "^aaaa$", "maxLength": 2}),
    ("pattern", {"enum": ["x", "y"], "pattern": "^z$"}),
    ("pattern", {"type": "string", "format": "date", "pattern": "^zz$"}),
    ("const", {"type": "string", "const": 5}),
    ("enum", {"allOf": [{"enum": [1, 2]}, {"enum": [3]}]}),
    ("multipleOf", {"type": "integer", "minimum": 3, "maximum": 4, "multipleOf": 7}),
    ("minItems", {"type": "array", "minItems": 3, "prefixItems": [STRING], "items": False}),
    ("allOf", {"allOf": [STRING, {"type": "integer"}]}),
    ("anyOf", {"anyOf": [STRING], "type": "integer"}),
]


def chat_of(*tools, strict=False, named=""):
    """A chat whose answer must be a call; tools are (name, schema of the arguments)."""
    chat = conversation.Chat()
    for name, schema in tools:
        chat.tools.add(name=name, parameters_schema_json=json.dumps(schema), strict=strict)
    if named:
        chat.tool_choice.named = named
    else:
        chat.tool_choice.required.SetInParent()
    return chat


def of(value):
    return {"type": "object", "properties": {"a": value}, "required": ["a"]}


async def holds(schema):
    return not complaint(schema)


def call_of(chat, loosened):
    return forced_call(chat, formats.tools_of(chat), loosened)


async def loosened(chat, judge=holds):
    return await loosen(chat, call_of(chat, {}), judge)


async def test_a_call_that_can_be_enforced_keeps_its_schema():
    assert await loosened(chat_of(("one", GOOD), ("two", of(STRING)))) == {}


@pytest.mark.parametrize(("keyword", "value"), CONTRADICTORY)
async def test_a_strict_tool_is_refused_by_its_name_and_the_keyword(keyword, value):
    chat = chat_of(("good", GOOD), ("culprit", of(value)), ("other", GOOD), strict=True)

    found = await loosened(chat)
    with pytest.raises(FleetError) as caught:
        call_of(chat, found)

    assert found == {"culprit": {keyword}}
    assert caught.value.reason is Reason.BAD_CONSTRAINT
    assert caught.value.field == "tools.1.parameters_schema_json"
    assert "'culprit'" in caught.value.message
    assert f"'{keyword}'" in caught.value.message


@pytest.mark.parametrize(("keyword", "value"), CONTRADICTORY)
async def test_a_tool_that_is_not_strict_loses_that_keyword_alone_and_says_so(keyword, value):
    chat = chat_of(("good", GOOD), ("culprit", of(value)))

    call = call_of(chat, await loosened(chat))

    assert not complaint(call.schema)
    assert call.repairs == {"culprit": f"not held to {keyword} of the tool's schema"}
    assert not accepts(call.schema, '{"name": "good", "arguments": {"a": "x"}}')


async def test_a_tool_of_which_no_keyword_alone_is_to_blame_is_named_all_the_same():
    both = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "pattern": "^aaaa$", "maxLength": 2},
            "b": {"type": "string", "const": 5},
        },
        "required": ["a", "b"],
    }

    free = chat_of(("good", GOOD), ("culprit", both))
    strict = chat_of(("good", GOOD), ("culprit", both), strict=True)

    assert await loosened(free) == {"culprit": WHOLE}
    call = call_of(free, await loosened(free))
    assert accepts(call.schema, '{"name": "culprit", "arguments": {"z": [1]}}')
    assert call.repairs == {"culprit": "not held to the tool's schema"}
    with pytest.raises(FleetError, match="'culprit'") as caught:
        call_of(strict, await loosened(strict))
    assert caught.value.field == "tools.1.parameters_schema_json"


async def test_tools_that_hold_one_by_one_and_not_together_take_any_arguments():
    async def one_at_a_time(schema):
        return '"anyOf"' not in schema or '"integer"' not in schema

    chat = chat_of(("one", GOOD), ("two", GOOD))

    assert await loosened(chat, one_at_a_time) == {"one": WHOLE, "two": WHOLE}


async def test_only_the_named_tool_is_looked_at():
    chat = chat_of(("good", GOOD), ("culprit", of(STRING | {"const": 5})), named="good")

    assert await loosened(chat) == {}
