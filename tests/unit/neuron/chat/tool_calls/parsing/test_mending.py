"""How JSON is mended whatever its family; the slips of each stand in `families`."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.neuron.chat.stream import TextPiece, ToolCallPiece
from services.neuron.chat.tool_calls import formats
from services.neuron.chat.tool_calls.parsing.calls import Tools
from tests.unit.neuron.chat.tool_calls.reading import CLOSE, OPEN, TOOLS, check_meaning, read

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4), st.booleans())
def test_arguments_in_python_s_spelling_are_the_same_arguments(arguments, is_name_first):
    pairs = [("name", "write"), ("arguments", arguments)]
    call = dict(pairs if is_name_first else pairs[::-1])

    _, _, calls, _ = read("hermes", list(f"{OPEN}{call!r}{CLOSE}"))

    # Python spells some characters with escapes that JSON has not: they stay as they are written
    written = json.loads(json.dumps(arguments).encode())
    assert [("call_0", "write", written)] == calls or "\\x" in repr(call) or "\\U" in repr(call)


def test_a_repair_is_told_once_for_each_call():
    output = f"{OPEN}{{'name': 'now', 'arguments': {{'a': True, 'b': False}}}}{CLOSE}"

    _, _, _, repairs = read("hermes", [output * 2])

    assert len(repairs) == 2


def test_an_answer_in_json_is_not_held_back():
    parser = formats.tool_parser("hermes", TOOLS, lambda: "id")

    told = parser.feed('{"title": "a ')

    assert [TextPiece('{"title": "a ')] == list(told)


def test_half_a_character_does_not_stop_an_answer():
    tools = Tools({"write": {}})
    parser = formats.tool_parser("hermes", tools, lambda: "id")

    pieces = parser.feed(
        f'{OPEN}{{"arguments": {{"a": "\\ud800"}}, "name": "write"}}{CLOSE}'
        f'{OPEN}{{"name": "\\ud800", "arguments": {{}}}}{CLOSE}'
    )

    told = [piece for piece in pieces if isinstance(piece, ToolCallPiece)]
    assert '{"a": "\\ufffd"}' == "".join(piece.arguments_json for piece in told)
    assert ["write"] == [piece.name for piece in told if piece.name]


def test_arguments_are_passed_on_as_they_are_written():
    parser = formats.tool_parser("hermes", TOOLS, lambda: "id")
    written = '{"a": 1.50, "a":  100e-6}'

    pieces = parser.feed(f'{OPEN}{{"arguments": {written}, "name": "now"}}{CLOSE}')

    assert [ToolCallPiece(0, "id", "now", written)] == list(pieces)


def test_depth_without_end_is_text():
    output = '{"name": "now", "arguments": {"a": ' + "[" * 5000 + "]" * 5000 + "}}"

    text, _, calls, _ = read("pythonic", [output])

    assert ([], output) == (calls, text)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"\ud83d\ude00", "😀"),
        (r"\ud83d", "\ufffd"),
        (r"\ude00", "\ufffd"),
        (r"\ud83dx", "\ufffdx"),
        (r"\ud83d\n", "\ufffd\n"),
        (r"\ud83d\u00e9", "\ufffdé"),
        (r"\ud83d\ud83d\ude00", "\ufffd😀"),
        (r"\u00e9\\ud83d", "é\\ud83d"),
    ],
)
@pytest.mark.parametrize("name", ["hermes", "kimi", "harmony"])
def test_half_a_surrogate_pair_is_the_replacement_character(name, written, meant):
    arguments = f'{{"a": "{written}"}}'
    output = {
        "hermes": f'{OPEN}{{"name": "write", "arguments": {arguments}}}{CLOSE}',
        "kimi": f"<|tool_call_begin|>functions.write:0<|tool_call_argument_begin|>{arguments}"
        "<|tool_call_end|>",
        "harmony": f"<|channel|>commentary to=functions.write<|message|>{arguments}<|call|>",
    }[name]

    check_meaning(name, output, ("", [("call_0", "write", {"a": meant})]))


def test_numbers_that_python_does_not_count_stop_no_answer():
    digits = "1" * 5000

    text, _, calls, _ = read("hermes", [f'{OPEN}{{"name": "now", "x": {digits}}}{CLOSE}'])

    assert ("", [("call_0", "now", {})]) == (text, calls)
