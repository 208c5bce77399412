import itertools

from hypothesis import given
from hypothesis import strategies as st

from services.agent.answer.text_tool_calls import (
    InBandParser,
    Piece,
    RawCall,
    Reasoning,
    Text,
    as_text,
    instructions,
)
from services.agent.core.history import (
    AssistantTurn,
    ResultsTurn,
    TextPart,
    ToolCall,
    ToolResult,
    Turn,
    UserTurn,
)
from services.agent.endpoints.endpoint import ToolSpec

FRAGMENTS = [
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool", "</", "<", ">", "text ", "\n",
    '{"name": "bash", "arguments": {"command": "ls"}}', '{"a": "', '"}', "ünï🌍", "\\", '"',
]  # fmt: skip


def parse(chunks: list[str]) -> list[Piece]:
    parser = InBandParser()
    pieces = [piece for chunk in chunks for piece in parser.feed(chunk)] + parser.finish()
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if isinstance(piece, Text) and isinstance(last, Text):
            joined[-1] = Text(last.text + piece.text)
        elif isinstance(piece, Reasoning) and isinstance(last, Reasoning):
            joined[-1] = Reasoning(last.text + piece.text)
        else:
            joined.append(piece)
    return joined


def test_a_blank_before_a_thinking_block_is_dropped_in_any_chunking():
    assert parse(["\n<think>x"]) == parse(list("\n<think>x")) == [Reasoning("x")]
    assert parse(["\n<tool"]) == parse(list("\n<tool")) == [Text("\n<tool")]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12), st.data())
def test_any_chunking_gives_the_same_pieces(fragments: list[str], data: st.DataObject):
    text = "".join(fragments)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8)) if text else []
    edges = [0, *sorted(cuts), len(text)]
    chunks = [text[a:b] for a, b in itertools.pairwise(edges)]

    assert parse([text]) == parse(chunks) == parse(list(text))


@given(st.lists(st.sampled_from(FRAGMENTS[4:]), max_size=12))
def test_text_without_markers_passes_through_whole(fragments: list[str]):
    text = "".join(fragments)

    assert ([Text(text)] if text else []) == parse(list(text))


def test_reasoning_text_and_calls_are_told_apart():
    text = '\n<think>why</think>Here:<tool_call>{"a":1}</tool_call>\n<tool_call>{"b":2}</tool_call>'

    assert [
        Reasoning("why"),
        Text("Here:"),
        RawCall('{"a":1}', is_complete=True),
        Text("\n"),
        RawCall('{"b":2}', is_complete=True),
    ] == parse([text])


def test_think_markers_inside_an_answer_are_text():
    assert [Text("write <think> like this")] == parse(["write <think> like this"])


def test_a_close_marker_inside_a_json_string_does_not_end_the_call():
    raw = '{"name": "write_file", "arguments": {"content": "a </tool_call> b \\" c"}}'

    assert [RawCall(raw, is_complete=True)] == parse([f"<tool_call>{raw}</tool_call>"])


def test_a_call_that_is_cut_off_is_reported():
    assert [RawCall('{"name": "ba', is_complete=False)] == parse(['<tool_call>{"name": "ba'])


def test_a_thought_that_is_cut_off_stays_a_thought():
    assert [Reasoning("hm")] == parse(["<think>h", "m"])


def test_past_calls_and_results_become_text():
    call = ToolCall("c1", "bash", {"command": "ls"})
    broken = ToolCall("c2", "", None, raw="{oops", note="not JSON")
    turns: list[Turn] = [
        AssistantTurn(text="Look:", calls=(call, broken)),
        ResultsTurn((ToolResult("c1", "bash", "a.txt"), ToolResult("c2", "", "ERROR: bad"))),
    ]

    assistant, user = as_text(turns)

    assert isinstance(assistant, AssistantTurn)
    assert () == assistant.calls
    assert assistant.text == (
        'Look:\n<tool_call>\n{"name": "bash", "arguments": {"command": "ls"}}\n</tool_call>\n'
        "<tool_call>\n{oops\n</tool_call>"
    )
    assert isinstance(user, UserTurn)
    text = "<tool_response>\na.txt\n</tool_response>\n<tool_response>\nERROR: bad\n</tool_response>"
    assert (TextPart(text),) == user.parts


def test_instructions_name_every_tool_and_the_format():
    text = instructions([ToolSpec("bash", "Runs", {"type": "object"})])

    assert '"name": "bash"' in text
    assert "<tool_call>" in text
