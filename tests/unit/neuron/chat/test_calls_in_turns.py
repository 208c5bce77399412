"""What this server once told is taken back by templates of every kind."""

import itertools
import json
import os
from pathlib import Path

import pytest

from cortex.v1 import conversation_pb2 as c
from services.neuron.chat.stream import ReasoningPiece, TextPiece, ToolCallPiece
from services.neuron.chat.template import ChatTemplate
from services.neuron.chat.tool_calls import formats
from tests.doubles.vocabulary import CHATML
from tests.unit.neuron.chat.tool_calls.reading import TOOLS
from tests.unit.neuron.chat.tool_calls.test_cut import WRITTEN

LOOP = "{{ tools | tojson }}{% for m in messages %}<{{ m.role }}>"
END = "{{ m.content }}{% endfor %}"
ALTERNATES = (
    "{% set ns = namespace(n=0) %}{% for m in messages if m.role in ['user', 'assistant'] and not m.tool_calls %}"
    "{% if (m.role == 'user') != (ns.n % 2 == 0) %}{{ raise_exception('must alternate') }}{% endif %}"
    "{% set ns.n = ns.n + 1 %}{% endfor %}"
)
# What templates of models do with calls, each in the fewest words.
KINDS = {
    "walks": LOOP + "{% for t in m.tool_calls or [] %}{% for k, v in t.function.arguments | items %}{{ k }}={{ v }};{% endfor %}{% endfor %}" + END,
    "prints": LOOP + "{% for t in m.tool_calls or [] %}{{ t.function | tojson }}{% endfor %}" + END,
    "one call": LOOP + "{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}{{ raise_exception('single tool-calls') }}{% endif %}{{ m.tool_calls[0].function.arguments | tojson }}{% endif %}" + END,
    "first call": LOOP + "{% if m.tool_calls %}{{ m.tool_calls[0].function | tojson }}{% endif %}" + END,
    "thinking": LOOP + "{% if m.tool_calls %}{% if m.content and m.thinking %}{{ raise_exception('Cannot pass both') }}{% endif %}{{ m.thinking }}{% for t in m.tool_calls %}{{ t.function | tojson }}{% endfor %}{% endif %}" + END,
    "ids": LOOP + "{% for t in m.tool_calls or [] %}{% if t.id | length != 9 %}{{ raise_exception('9') }}{% endif %}{{ t.function | tojson }}{% endfor %}" + END,
    "no text beside": LOOP + "{% if m.tool_calls %}{% if m.content %}{{ raise_exception('text') }}{% endif %}{% for t in m.tool_calls %}{{ t.function | tojson }}{% endfor %}{% endif %}" + END,
    "alternates": ALTERNATES + LOOP + "{% for t in m.tool_calls or [] %}{{ t.function | tojson }}{% endfor %}" + END,
    "no tools": CHATML,
}  # fmt: skip
# More of them, whole, from a folder of somebody's.
FOLDER = os.environ.get("CORTEX_TEST_TEMPLATES", "")
KINDS |= {path.name: path.read_text() for path in Path(FOLDER).glob("*.jinja") if FOLDER}
CHANGES = {
    "whole": lambda output: output,
    "cut": lambda output: output[: output.rindex("rm -rf") + 4],
    "twice": lambda output: f"{output}\n{output}",
    "with text": lambda output: f"I will look.\n{output}",
}


def answered(name, output, *, reasoning=""):
    """The parts of a turn that an output becomes, as a client sends it back; and its call ids."""
    numbers = itertools.count()
    parser = formats.tool_parser(name, TOOLS, lambda: f"call_{next(numbers)}")
    turn = c.Message(role=c.ROLE_ASSISTANT)
    if reasoning:
        turn.parts.add().reasoning.text = reasoning
    for piece in [*parser.feed(output), *parser.finish(is_cut=True)]:
        match piece:
            case TextPiece():
                turn.parts.add(text=piece.text)
            case ReasoningPiece():
                turn.parts.add().reasoning.text = piece.text
            case ToolCallPiece() if piece.name:
                turn.parts.add().tool_call.MergeFrom(
                    c.ToolCall(
                        call_id=piece.call_id,
                        name=piece.name,
                        arguments_json=piece.arguments_json,
                    )
                )
            case ToolCallPiece():
                turn.parts[-1].tool_call.arguments_json += piece.arguments_json
    return turn


def rendered(source, *turns):
    chat = c.Chat(messages=turns)
    chat.tools.add(name="write", parameters_schema_json='{"type": "object"}')
    template = ChatTemplate(
        source,
        control_tokens={"<|im_end|>": 1},
        variables={"bos_token": "", "eos_token": ""},
        shows_tools=source != CHATML,
    )
    return "".join(segment.text for segment in template.render(chat, {}).prompt.segments)


def user(text):
    return c.Message(role=c.ROLE_USER, parts=[c.Part(text=text)])


def results(turn):
    made = c.Message(role=c.ROLE_TOOL)
    for part in turn.parts:
        if part.HasField("tool_call"):
            result = made.parts.add().tool_result
            result.call_id = part.tool_call.call_id
            result.parts.add(text=f"result of {part.tool_call.call_id}")
    return [made] if made.parts else []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES)
def test_every_answer_of_every_family_is_taken_back(kind, change):
    for name, output in WRITTEN.items():
        turn = answered(name, CHANGES[change](output), reasoning="a long thought")
        text = rendered(KINDS[kind], user("hi"), turn, *results(turn), user("again"))
        told = [part.tool_call for part in turn.parts if part.HasField("tool_call")]
        assert kind not in {"first call", "one call"} or text.count("srv") >= len(told)
        for call in told:
            assert f"result of {call.call_id}" in text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arguments", ['{"path": "a.t', "{", '["x"]', '"x"', "null", "", "1"])
def test_arguments_that_are_no_object_end_no_conversation(kind, arguments):
    turn = c.Message(role=c.ROLE_ASSISTANT)
    turn.parts.add().tool_call.MergeFrom(
        c.ToolCall(call_id="call_0", name="write", arguments_json=arguments)
    )

    text = rendered(KINDS[kind], user("hi"), turn, *results(turn), user("again"))

    words = arguments.strip('{["]}')[:4]
    assert words in text or arguments == "null"


def test_two_calls_of_a_turn_come_one_by_one_with_their_results():
    turn = answered("hermes", CHANGES["twice"](WRITTEN["hermes"]))

    text = rendered(KINDS["one call"], user("hi"), turn, *results(turn), user("again"))

    calls = [text.index("rm -rf it"), text.index("rm -rf it", text.index("result of call_0"))]
    assert calls[0] < text.index("result of call_0") < calls[1] < text.index("result of call_1")


def test_reasoning_reaches_templates_that_call_it_thinking():
    turn = answered("hermes", CHANGES["with text"](WRITTEN["hermes"]), reasoning="a long thought")

    text = rendered(KINDS["thinking"], user("hi"), turn, *results(turn))

    assert "a long thought\n\nI will look." in text
    assert json.dumps("rm -rf it") in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_may_begin_with_the_assistant(kind):
    greeting = c.Message(role=c.ROLE_ASSISTANT, parts=[c.Part(text="Welcome.")])

    assert "Welcome." in rendered(KINDS[kind], greeting, user("hi"))
