import json

import pytest

from cortex.v1 import conversation_pb2 as conversation
from services.neuron.chat.tool_calls import forced
from services.neuron.chat.tool_calls.parsing.calls import Tools

LISTED = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def arguments_of(parameters):
    chat = conversation.Chat()
    chat.tools.add(name="add", parameters_schema_json=json.dumps(parameters))
    chat.tool_choice.required.SetInParent()
    whole = json.loads(forced.schema(chat, Tools({"add": parameters})))
    return whole["properties"]["arguments"]


def test_arguments_that_no_schema_lists_are_not_made_up():
    assert arguments_of(LISTED)["additionalProperties"] is False


@pytest.mark.parametrize(
    "more",
    [
        {"additionalProperties": True},
        {"additionalProperties": {"type": "string"}},
        {"patternProperties": {"^x": {"type": "string"}}},
        {"anyOf": [{"required": ["b"]}]},
    ],
)
def test_a_schema_that_allows_more_is_left_as_it_is(more):
    assert arguments_of(LISTED | more) == LISTED | more


def test_arguments_without_properties_stay_open():
    assert arguments_of({}) == {"type": "object"}
