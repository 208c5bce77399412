"""Whatever is in a chat's JSON, composing its prompt and reading its answer raise FleetError alone."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError
from services.neuron.chat.answer import ChatStyle
from services.neuron.chat.reasoning import FORMATS
from services.neuron.chat.template import ChatTemplate
from tests.doubles.vocabulary import CHATML

WALKING = (
    "{{ tools | tojson }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{% for k, v in c.function.arguments | items %}"
    "{{ k }}={{ v }}{% endfor %}{% endfor %}<|im_end|>{% endfor %}<think>\n"
)
KEYWORDS = (
    "type", "properties", "required", "$defs", "definitions", "$ref", "anyOf", "oneOf", "allOf",
    "enum", "const", "items", "prefixItems", "additionalProperties", "patternProperties", "not",
    "format", "pattern", "minimum", "exclusiveMaximum", "maxLength", "multipleOf", "$id", "a",
)  # fmt: skip
ODD: list[Any] = [
    None, True, 0, -1, 1.5, float("inf"), 10**400, "", "#", "#/", "#/a", "#/$defs/a", "#/%zz", "a#b", "//[",
    "object", "string", "\ud83d", "(", "[" * 50, [], [None], [[]], {}, {"a": None}, [1, 1],
]  # fmt: skip
values = st.recursive(
    st.sampled_from(ODD),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4)
    ),
    max_leaves=12,
)
texts = values.map(json.dumps) | st.sampled_from(
    ["", "{", "[" * 3000, "nul", '"\\ud83d"', "1" * 5000, '{"a": {"$ref": "#"}}', "NaN"]
)
SAID = [
    '{"name": "f", "arguments": {"a": 1}}',
    '<tool_call>{"arguments": {"a": "\\ud83d"}}</tool_call>',
    "<tool_call><function=f>\n<parameter=a>\n[1]\n</parameter>\n<parameter=zz>\nx",
    "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>{[]: 1}</arg_value>\n</tool_call>",
    '[f(a={1: "x"})]',
]


@settings(max_examples=300)
@given(
    schemas=st.lists(texts, min_size=1, max_size=3),
    arguments=texts,
    variables=texts,
    name=st.sampled_from(["f", "", "g\n"]),
    forces=st.booleans(),
    family=st.sampled_from(["hermes", "qwen_xml", "glm", "pythonic", "generic"]),
    said=st.sampled_from(SAID),
    strict=st.booleans(),
)
def test_nothing_else_than_fleet_errors(
    schemas, arguments, variables, name, forces, family, said, strict
):
    chat = conversation.Chat(template_variables_json=variables)
    for schema in schemas:
        chat.tools.add(name=name, parameters_schema_json=schema, strict=strict)
    if forces:
        chat.tool_choice.required.SetInParent()
    chat.messages.add(role=conversation.ROLE_USER).parts.add(text="hi")
    turn = chat.messages.add(role=conversation.ROLE_ASSISTANT)
    turn.parts.add().tool_call.MergeFrom(
        conversation.ToolCall(call_id="1", name=name, arguments_json=arguments)
    )
    result = chat.messages.add(role=conversation.ROLE_TOOL).parts.add().tool_result
    result.call_id = "1"

    with contextlib.suppress(FleetError):
        for source, shows in ((CHATML, False), (WALKING, True)):
            template = ChatTemplate(
                source, control_tokens={"<|im_end|>": 1}, variables={}, shows_tools=shows
            )
            for segment in template.render(chat, {}).prompt.segments:
                segment.text.encode()
    with contextlib.suppress(FleetError):
        style = ChatStyle(FORMATS["think"], family)
        made = style.answer(chat, tail="", constraint=None, new_id=lambda: "id")
        for piece in [*made.parser.feed(said), *made.parser.finish()]:
            str(piece).encode()


@pytest.mark.parametrize("role", [conversation.ROLE_SYSTEM, conversation.ROLE_ASSISTANT])
def test_pictures_beside_tools_stop_no_template(role):
    chat = conversation.Chat()
    turn = chat.messages.add(role=role)
    turn.parts.add(text="look")
    turn.parts.add().image.data = b"x"
    turn.parts.add().tool_call.name = "f"
    chat.messages.add(role=conversation.ROLE_USER).parts.add(text="hi")
    chat.tools.add(name="f")
    template = ChatTemplate(
        "{% for m in messages %}{{ m.content }}{% endfor %}",
        control_tokens={}, variables={}, shows_tools=False,
    )  # fmt: skip

    text = "".join(segment.text for segment in template.render(chat, {}).prompt.segments)

    assert '"name": "f"' in text
