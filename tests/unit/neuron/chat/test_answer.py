import json

import llguidance
import pytest

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError, Reason
from services.neuron.chat.answer import ChatStyle
from services.neuron.chat.reasoning import FORMATS
from services.neuron.chat.stream import ReasoningPiece, TextPiece, ToolCallPiece
from services.neuron.chat.template import ChatTemplate
from services.neuron.engine_api.task import Constraint, ConstraintKind
from services.neuron.engines.common.constraint import ConstraintCompiler
from tests.doubles.vocabulary import CHATML
from tests.unit.neuron.chat.schemas.accepting import takes
from tests.unit.neuron.chat.tool_calls.test_cut import WRITTEN

PLAIN = ChatStyle(None, "generic")
THINKER = ChatStyle(FORMATS["think"], "hermes")
SCHEMA = Constraint(ConstraintKind.JSON_SCHEMA, '{"type": "object"}')
ADD = conversation.Tool(
    name="add",
    description="Adds.",
    parameters_schema_json='{"type": "object", "properties": {"a": {"type": "integer"}}}',
)


def user(text="hi", **fields):
    turn = conversation.Message(role=conversation.ROLE_USER, parts=[conversation.Part(text=text)])
    return conversation.Chat(messages=[turn], **fields)


def answer(style, chat, *, tail="", constraint=None):
    return style.answer(chat, tail=tail, constraint=constraint, new_id=lambda: "id")


def pieces(made, output):
    return [*made.parser.feed(output), *made.parser.finish()]


def test_without_tools_a_call_is_text():
    said = '<tool_call>{"name": "add"}</tool_call>'

    assert [TextPiece(said)] == pieces(answer(PLAIN, user()), said)


def test_with_tools_it_is_a_call():
    said = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'

    made = answer(PLAIN, user(tools=[ADD]))

    assert [ToolCallPiece(0, "id", "add", '{"a": 1}')] == pieces(made, said)


def test_with_tools_that_may_not_be_called_it_is_text():
    choice = conversation.ToolChoice(none=conversation.NoTool())
    said = '<tool_call>{"name": "add"}</tool_call>'

    assert [TextPiece(said)] == pieces(answer(PLAIN, user(tools=[ADD], tool_choice=choice)), said)


def test_reasoning_comes_before_calls():
    said = 'hm</think>\n\n<tool_call>{"name": "add", "arguments": {}}</tool_call>'

    made = answer(THINKER, user(tools=[ADD]), tail="<think>\n")

    assert [ReasoningPiece("hm"), ToolCallPiece(0, "id", "add", "{}")] == pieces(made, said)


@pytest.mark.parametrize(
    "choice",
    [
        conversation.ToolChoice(required=conversation.RequiredTool()),
        conversation.ToolChoice(named="add"),
    ],
    ids=["required", "named"],
)
def test_a_call_that_must_be_made_is_constrained_from_the_first_token(choice):
    made = answer(PLAIN, user(tools=[ADD], tool_choice=choice))

    assert made.constraint is not None
    schema = json.loads(made.constraint.text)
    assert "add" == schema["properties"]["name"]["const"]
    said = '{"name": "add", "arguments": {"a": 2}}'
    assert [ToolCallPiece(0, "id", "add", '{"a": 2}')] == pieces(made, said)


def test_any_of_several_tools_may_be_required():
    other = conversation.Tool(name="sub", parameters_schema_json="{}")
    choice = conversation.ToolChoice(required=conversation.RequiredTool())

    made = answer(PLAIN, user(tools=[ADD, other], tool_choice=choice))

    assert made.constraint is not None
    names = [
        one["properties"]["name"]["const"] for one in json.loads(made.constraint.text)["anyOf"]
    ]
    assert ["add", "sub"] == names


@pytest.mark.parametrize(
    "chat",
    [
        user(tool_choice=conversation.ToolChoice(required=conversation.RequiredTool())),
        user(tools=[ADD], tool_choice=conversation.ToolChoice(named="nobody")),
    ],
    ids=["no tools", "no such tool"],
)
def test_a_call_that_cannot_be_made_is_refused(chat):
    with pytest.raises(FleetError) as caught:
        answer(PLAIN, chat)

    assert (Reason.BAD_REQUEST, "tool_choice") == (caught.value.reason, caught.value.field)


def test_a_constraint_waits_for_the_end_of_the_reasoning():
    made = answer(THINKER, user(), tail="<think>\n", constraint=SCHEMA)

    assert made.constraint is not None
    assert ConstraintKind.LARK is made.constraint.kind
    assert [ReasoningPiece("hm"), TextPiece("{}")] == pieces(made, "hm</think>\n{}")


def test_a_constraint_without_reasoning_is_left_alone():
    assert SCHEMA == answer(THINKER, user(), constraint=SCHEMA).constraint


LARK = Constraint(ConstraintKind.LARK, 'start: "a" b\nb: /[b{]+/')
REGEX = Constraint(ConstraintKind.REGEX, r"https?:\/\/\w+/x")
ANSWERS = [
    (SCHEMA, '{"a": 1}', "a"),
    (Constraint(ConstraintKind.JSON_OBJECT), "{}", "[]"),
    (LARK, "ab{", "ba"),
    (REGEX, "http://a/x", "http:a"),
]


def taken(made, output):
    """Whether the constraint of an answer lets this output be made."""
    assert made.constraint.kind is ConstraintKind.LARK
    return takes(llguidance.LLMatcher.grammar_from_lark(made.constraint.text), output)


@pytest.mark.parametrize(("constraint", "right", "wrong"), ANSWERS)
def test_every_constraint_holds_behind_reasoning(constraint, right, wrong):
    made = answer(THINKER, user(), tail="<think>\n", constraint=constraint)

    assert taken(made, f"any thought</think>\n\n{right}")
    assert not taken(made, f"any thought</think>\n\n{wrong}")
    # what is not taken away behind the reasoning would be part of the answer
    for blank in (" ", "\r", "\u2003", "\n" * 5):
        assert not taken(made, f"any thought</think>{blank}{right}")


@pytest.mark.parametrize(("constraint", "right", "wrong"), ANSWERS)
@pytest.mark.parametrize("tail", ["", "<think>\n"])
def test_beside_tools_calls_pass_and_the_text_is_held_to_its_shape(constraint, right, wrong, tail):
    lead = "hm</think>\n" if tail else ""

    made = answer(THINKER, user(tools=[ADD]), tail=tail, constraint=constraint)

    assert taken(made, lead + CALL)
    assert taken(made, f"{lead}\n{CALL}\n{CALL}")
    assert taken(made, lead + right)
    assert not taken(made, lead + wrong)
    assert not taken(made, f"{lead}Well. {right}")
    assert [("add", '{"a": 1}')] == [
        (piece.name, piece.arguments_json)
        for piece in pieces(made, lead + CALL)
        if isinstance(piece, ToolCallPiece)
    ]


def test_a_shaped_text_that_quotes_a_call_is_text():
    made = answer(PLAIN, user(tools=[ADD]), constraint=SCHEMA)
    said = json.dumps({"a": CALL})

    assert said == "".join(piece.text for piece in pieces(made, said))


def test_a_token_may_hold_the_end_of_an_opening_and_more():
    """Otherwise `>` and a line break in one token are forbidden, and the call comes out odd."""
    pieces = [*(bytes([byte]) for byte in range(256)), b'>\n{"name"', b"<end>"]
    compiler = ConstraintCompiler(
        pieces=pieces, special_token_ids=[257], eos_token_id=257, tokenize=list
    )
    made = answer(ChatStyle(None, "hermes"), user(tools=[ADD]), constraint=SCHEMA)
    output = compiler.compile(made.constraint)

    for token in (*b"<tool_call", 256, *b': "add", "arguments": {}}\n</tool_call>'):
        output.accept(token)


@pytest.mark.parametrize("name", WRITTEN)
def test_the_calls_of_every_family_pass_beside_a_schema(name):
    schema = '{"type": "object", "properties": {"path": {}, "content": {}}}'
    tool = conversation.Tool(name="write", parameters_schema_json=schema)

    made = answer(ChatStyle(None, name), user(tools=[tool]), constraint=SCHEMA)

    assert name == "generic" or taken(made, WRITTEN[name])
    assert taken(made, "{}")
    told = [piece for piece in pieces(made, WRITTEN[name]) if isinstance(piece, ToolCallPiece)]
    assert name == "generic" or "write" == told[0].name


@pytest.mark.parametrize(
    "call",
    [
        '{"name": "subtract", "arguments": {}}',  # no tool of the request
        '{"name": "add", "arguments": [1]}',
        '{"name": "add", "arguments": {"b": 1}}',
        '{"name": "add", "arguments": {"a": "1"}}',
        "I would call add.",
    ],
)
@pytest.mark.parametrize("style", [THINKER, PLAIN])
def test_what_comes_in_place_of_a_shape_is_a_call_of_a_tool_at_hand(style, call):
    made = answer(style, user(tools=[ADD]), constraint=SCHEMA)

    assert not taken(made, f"<tool_call>\n{call}\n</tool_call>")
    assert not taken(made, f"{CALL}\nThat was all.")
    assert not taken(made, "\n".join([CALL] * 17))
    assert taken(made, "\n".join([CALL] * 16))


def test_what_cannot_be_enforced_of_a_strict_tool_is_left_out_beside_a_shape():
    schema = '{"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}}'
    odd = conversation.Tool(name="odd", parameters_schema_json=schema, strict=True)

    made = answer(THINKER, user(tools=[odd]), constraint=SCHEMA)

    assert taken(made, '<tool_call>\n{"name": "odd", "arguments": {"a": [1, 1]}}\n</tool_call>')


def test_tools_nested_too_deeply_to_be_held_to_are_called_freely_beside_a_shape():
    deep = '{"type": "object", "properties": {"a": ' * 400 + "{}" + "}}" * 400
    tool = conversation.Tool(name="add", parameters_schema_json=deep)

    made = answer(THINKER, user(tools=[tool]), constraint=SCHEMA)

    assert made.call is None
    assert taken(made, CALL)


def test_harmony_thinks_and_answers_in_its_channels_beside_tools():
    made = answer(ChatStyle(None, "harmony"), user(tools=[ADD]), constraint=SCHEMA)
    thought = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"

    assert taken(made, thought + "<|channel|>final<|message|>{}")
    assert taken(made, thought + "<|channel|>commentary to=functions.add <|message|>{}<|call|>")
    assert not taken(made, thought + "<|channel|>final<|message|>hi")


def test_control_tokens_stand_in_a_constraint_by_their_ids():
    style = ChatStyle(FORMATS["think"], "hermes", {"</think>": 7, "<tool_call>": 8})

    made = answer(style, user(tools=[ADD]), tail="<think>\n", constraint=SCHEMA)

    assert made.constraint is not None
    assert "<[7]>" in made.constraint.text
    assert "one: <[8]> " in made.constraint.text
    assert "think>" not in made.constraint.text


def test_without_tools_that_may_be_called_a_constraint_is_left_alone():
    chat = user(tools=[ADD], tool_choice=conversation.ToolChoice(none=conversation.NoTool()))

    assert SCHEMA == answer(PLAIN, chat, constraint=SCHEMA).constraint
    assert SCHEMA == answer(ChatStyle(None, "cohere"), user(), constraint=SCHEMA).constraint


def test_a_template_without_tools_shows_them_all_the_same():
    template = ChatTemplate(
        CHATML, control_tokens={"<|im_start|>": 1, "<|im_end|>": 2}, variables={}, shows_tools=False
    )
    call = conversation.ToolCall(call_id="1", name="add", arguments_json='{"a": 1}')
    result = conversation.ToolResult(call_id="1", parts=[conversation.Part(text="2")])
    chat = user("1 and 1?", tools=[ADD])
    chat.messages.add(role=conversation.ROLE_ASSISTANT, parts=[conversation.Part(tool_call=call)])
    chat.messages.add(role=conversation.ROLE_TOOL, parts=[conversation.Part(tool_result=result)])

    rendered = template.render(chat, {})

    text = "".join(segment.text for segment in rendered.prompt.segments)
    assert '"name": "add"' in text.partition("<tools>")[2]
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>' in text
    assert "user\n<tool_response>\n2\n</tool_response>" in text


CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_a_call_that_ends_unclosed_reasoning_is_made(cut):
    made = answer(THINKER, user(tools=[ADD]), tail="<think>\n")
    output = f"I could {CALL} first. But no:\n{CALL}\n{CALL}\n"

    told = [
        piece
        for at in range(0, len(output), cut)
        for piece in made.parser.feed(output[at : at + cut])
    ]
    calls = made.parser.finish()

    assert output.strip() == "".join(piece.text for piece in told).strip()
    assert [0, 1] == [piece.index for piece in calls if isinstance(piece, ToolCallPiece)]
    assert '{"a": 1}' == calls[0].arguments_json
    assert "never ended" in calls[0].repair


@pytest.mark.parametrize(
    "output",
    [f"I could {CALL}. Hm", f"I could {CALL}.</think>No.", "just cut off", f"Now {CALL[:-15]}"],
)
def test_a_call_in_a_thought_is_a_thought(output):
    made = answer(THINKER, user(tools=[ADD]), tail="<think>\n")

    assert not [piece for piece in pieces(made, output) if isinstance(piece, ToolCallPiece)]


@pytest.mark.parametrize(
    "schema",
    [
        '{"$ref": "#"}',
        '{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}',
    ],
)
def test_a_schema_of_nothing_but_itself_is_refused_behind_reasoning_too(schema):
    constraint = Constraint(ConstraintKind.JSON_SCHEMA, schema)

    with pytest.raises(FleetError, match="only to itself: #") as caught:
        answer(THINKER, user(), tail="<think>\n", constraint=constraint)

    assert (caught.value.reason, caught.value.field) == (Reason.BAD_CONSTRAINT, "constraint")
