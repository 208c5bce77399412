import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.answer.reply import Reply
from services.agent.core.history import AssistantTurn
from services.agent.endpoints.endpoint import (
    CallDelta,
    CallStarted,
    Finished,
    FinishReason,
    TextDelta,
)

TOOLS = {"bash": ("command",), "read_file": ("path",)}
LS = '{"name": "bash", "arguments": {"command": "ls"}}'
READ = '{"name": "read_file", "parameters": {"path": "a"}}'
CALL = f"<tool_call>{LS}</tool_call>"


def answered(chunks: list[str], *, is_text_format: bool) -> AssistantTurn:
    numbers = itertools.count()
    reply = Reply(tools=TOOLS, is_text_format=is_text_format, new_id=lambda _: f"c{next(numbers)}")
    for chunk in chunks:
        list(reply.take(TextDelta(chunk)))
    list(reply.take(Finished(FinishReason.END)))
    return reply.turn()


@pytest.mark.parametrize(
    ("text", "names", "rest"),
    [
        (CALL, ["bash"], ""),
        (f"Look:\n{CALL}", ["bash"], "Look:\n"),
        (f"<tool_calls>[{LS}, {READ}]</tool_calls>", ["bash", "read_file"], ""),
        (f"<tool_calls>{CALL}\n{CALL}</tool_calls>", ["bash", "bash"], ""),
        (f"<tool_call>{LS}\n{READ}</tool_call>", ["bash", "read_file"], ""),
        (f"[TOOL_CALLS][{LS}]", ["bash"], ""),
        ('[TOOL_CALLS]bash[ARGS]{"command": "ls"}', ["bash"], ""),
        (f"<|python_tag|>{READ}; {LS}", ["read_file", "bash"], ""),
        (LS, ["bash"], ""),
        (f"<think>hm</think>\n[{LS},\n{READ}]", ["bash", "read_file"], ""),
        (f"I look.\n```json\n{LS}\n```\n", ["bash"], "I look.\n"),
    ],
)
def test_text_mode_reads_the_notations_of_many_models(text: str, names: list[str], rest: str):
    turn = answered([text], is_text_format=True)

    assert (names, rest) == ([call.name for call in turn.calls], turn.text)
    assert [""] * len(names) == [call.note for call in turn.calls]


QUOTED = [
    f"Write it so:\n```\n{CALL}\n```\nand no other way.",
    f"~~~xml\n{CALL}\n~~~",
    f"The form is `{CALL}`.",
]


@pytest.mark.parametrize("is_text_format", [True, False])
@pytest.mark.parametrize("text", QUOTED)
def test_a_quoted_call_is_text(text: str, is_text_format: bool):
    assert AssistantTurn(text) == answered([text], is_text_format=is_text_format)


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{LS}\n```\nis how it would look.",
        f"```python\n{LS}\n```",
        f"```json\n{LS}",
        '{"name": "Ann", "arguments": {}}',
        '```json\n{"command": "ls"}\n```',
        "[1, 2]",
        "{not JSON}",
    ],
)
def test_json_that_is_no_whole_call_at_the_end_is_text(text: str):
    assert AssistantTurn(text) == answered([text], is_text_format=True)


def test_without_text_mode_only_hermes_markers_count():
    for text in (LS, f"[TOOL_CALLS][{LS}]", f"<|python_tag|>{LS}", f"```json\n{LS}\n```"):
        assert AssistantTurn(text) == answered([text], is_text_format=False)
    assert "bash" == answered([CALL], is_text_format=False).calls[0].name


PIECES = [
    LS, CALL, "```", "~~~", "json", "\n", " ", "`", "text", "<tool_calls>", "</tool_calls>",
    "[TOOL_CALLS]", "<think>", "</think>", "[", "{",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=10), st.booleans())
def test_any_chunking_gives_the_same_answer(pieces: list[str], is_text_format: bool):
    text = "".join(pieces)

    whole = answered([text], is_text_format=is_text_format)

    assert whole == answered(pieces, is_text_format=is_text_format)
    assert whole == answered(list(text), is_text_format=is_text_format)


HALF_FILE = (
    "<tool_call><function=write_file><parameter=path>x.py</parameter><parameter=content>line1\nlin"
)


def cut(events, stop: FinishReason, *, is_text_format: bool = True) -> AssistantTurn:
    numbers = itertools.count()
    tools = {**TOOLS, "write_file": ("path", "content")}
    reply = Reply(tools=tools, is_text_format=is_text_format, new_id=lambda _: f"c{next(numbers)}")
    for event in [*events, Finished(stop)]:
        list(reply.take(event))
    return reply.turn()


@pytest.mark.parametrize("is_text_format", [True, False])
@pytest.mark.parametrize("stop", [FinishReason.MAX_TOKENS, FinishReason.END])
@pytest.mark.parametrize(
    "text",
    [
        HALF_FILE,
        f"{HALF_FILE}</parameter>",
        '<tool_call>{"name": "bash", "arguments": {"command": "rm -rf /srv/a',
        '<tool_call>{"name": "write_file", "arguments": {"path": "a", "content": "b"}',
    ],
)
def test_a_call_that_the_answer_did_not_close_is_never_run(
    text: str, stop: FinishReason, is_text_format: bool
):
    turn = cut([TextDelta(text)], stop, is_text_format=is_text_format)

    (call,) = turn.calls
    assert call.arguments is None
    assert call.name in {"write_file", "bash"}
    assert ("token limit" in call.note) is (stop is FinishReason.MAX_TOKENS)
    assert "was not run" in call.note


@pytest.mark.parametrize("text", [f"[TOOL_CALLS][{LS}]", f"<|python_tag|>{READ}"])
def test_a_call_that_takes_the_rest_is_not_run_where_the_limit_ended_it(text: str):
    (call,) = cut([TextDelta(text)], FinishReason.MAX_TOKENS).calls

    assert call.arguments is None


def test_a_bare_object_that_the_limit_ended_is_text():
    assert cut([TextDelta(LS)], FinishReason.MAX_TOKENS) == AssistantTurn(LS)


def test_a_whole_call_without_its_closing_marker_runs():
    (call,) = cut([TextDelta(f"<tool_call>{LS}")], FinishReason.END).calls

    assert call.arguments == {"command": "ls"}


@pytest.mark.parametrize("arguments", ['{"command": "rm -rf /srv/a"}', '{"command": "rm -rf /s'])
def test_the_last_native_call_is_not_run_where_the_limit_ended_it(arguments: str):
    events = [
        CallStarted(0, "a", "bash"),
        CallDelta(0, '{"command": "ls"}'),
        CallStarted(1, "b", "bash"),
        CallDelta(1, arguments),
    ]
    first, last = cut(events, FinishReason.MAX_TOKENS).calls

    assert first.arguments == {"command": "ls"}
    assert last.arguments is None
    assert "Write less" in last.note
