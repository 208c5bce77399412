"""Arguments that are no JSON: their certain meaning, or as they were written, never another value."""

import itertools

import pytest

from services.neuron.chat.stream import TextPiece, ToolCallPiece
from services.neuron.chat.tool_calls import formats
from services.neuron.chat.tool_calls.parsing.calls import Tools
from tests.unit.neuron.chat.tool_calls.reading import CLOSE, OPEN, check_meaning, check_slip

TOOLS = Tools({"write": {}})
FORMATS = {
    "hermes": (OPEN + '\n{"name": "write", "arguments": ', "}\n" + CLOSE),
    "kimi": (
        "<|tool_call_begin|>functions.write:0<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
    ),
    "mistral": ("[TOOL_CALLS]write[ARGS]", ""),
    "llama3_json": ('{"name": "write", "parameters": ', "}"),
}
MEANT: dict[str, dict[str, object]] = {
    '"v": +5, "w": .5': {"v": 5, "w": 0.5},
    '"v": -.5, "w": 5.': {"v": -0.5, "w": 5.0},
    '"v": +1.5e3 , "w": 1_000': {"v": 1500, "w": 1000},
    '"v": 0x1F, "w": [-0b11, 0o17]': {"v": 31, "w": [-3, 15]},
    '"v": -Infinity, "w": NaN': {"v": None, "w": None},
    '"v": [inf, nan, +Infinity], "w": undefined': {"v": [None] * 3, "w": None},
    '"v": 1e400, "w": -1e400': {"v": None, "w": None},
    '"v": 007, "w": 5px': {"v": "007", "w": "5px"},
    '"v": New York, "w": 2026-11-28': {"v": "New York", "w": "2026-11-28"},
    'v: 1, "w": trueish, x-y : None': {"v": 1, "w": "trueish", "x-y": None},
    '"v": 12345678901234567890, "w": -0': {"v": 12345678901234567890, "w": 0},
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("written", MEANT)
def test_what_has_a_certain_meaning_is_read_as_that(name, written):
    before, behind = FORMATS[name]
    output = f'{before}{{"city": "x", {written}}}{behind}'

    check_slip(name, output, ("", [("call_0", "write", {"city": "x", **MEANT[written]})], ""))


def told(name, chunks):
    """(text, arguments, incomplete) of an output with one call that ended by itself."""
    numbers = itertools.count()
    parser = formats.tool_parser(name, TOOLS, lambda: f"call_{next(numbers)}")
    pieces = [piece for chunk in chunks for piece in parser.feed(chunk)]
    pieces += parser.finish()
    calls = [piece for piece in pieces if isinstance(piece, ToolCallPiece)]
    assert {piece.index for piece in calls} == {0}
    text = "".join(piece.text for piece in pieces if isinstance(piece, TextPiece))
    return text, "".join(piece.arguments_json for piece in calls), calls[-1].incomplete


UNREADABLE = [
    '{"v": now(1), "w": 2}',
    '{"v": "a" "w": "b"}',
    '{"v": "it"s", "w": 2}',
    '{"v": Paris, France, "w": 2}',
    '{"v": a"b", "w": 2}',
    '{"v": {1, 2}, "w": "b"}',
    '{"v": ' + "[" * 1100 + "]" * 1100 + "}",
]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("written", UNREADABLE, ids=lambda written: written[:20])
def test_what_cannot_be_read_is_told_as_it_was_written_and_is_no_whole_call(name, written):
    before, behind = FORMATS[name]
    output = before + written + behind

    text, arguments, incomplete = told(name, [output])

    assert (text, incomplete) == ("", True)
    assert arguments.replace('"Paris"', "Paris").startswith(written)
    assert CLOSE not in arguments
    assert told(name, list(output)) == (text, arguments, incomplete)


def test_the_answer_goes_on_behind_a_call_that_cannot_be_read():
    before, behind = FORMATS["hermes"]

    text, _, _ = told("hermes", [before + UNREADABLE[0] + behind + "\nDone."])

    assert text.strip() == "Done."


def test_a_call_of_which_nothing_was_told_is_text_as_a_whole():
    output = OPEN + '{"arguments": {"v": now(1)}, "name": "write"}' + CLOSE

    check_meaning("hermes", output, (output, []))


@pytest.mark.parametrize("name", FORMATS)
def test_a_word_that_the_output_ends_in_is_kept(name):
    before, _ = FORMATS[name]

    assert told(name, [before + '{"v": 0x1F'])[1:] == ('{"v": 31}', False)


def test_a_value_of_gemma_s_that_cannot_be_read_is_no_null():
    found = told("gemma", ['<|tool_call>call:write{path:a(b)="c",d}<tool_call|>ok'])

    assert found == ("ok", '{"path":a(b)="c",d}', True)
