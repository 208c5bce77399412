"""An output that a limit ended inside a call: no format makes a whole call of a part of one."""

import itertools
import json

import pytest

from services.neuron.chat.stream import ToolCallPiece
from services.neuron.chat.tool_calls import formats
from tests.unit.neuron.chat.tool_calls.reading import TOOLS

ARGUMENTS = {"path": "/srv/app/cache", "content": "rm -rf it"}
JSON = json.dumps(ARGUMENTS)
CALL = f'{{"name": "write", "arguments": {JSON}}}'
XML = (
    '<{0}invoke name="write"><{0}parameter name="path"{1}>/srv/app/cache</{0}parameter>'
    '<{0}parameter name="content"{1}>rm -rf it</{0}parameter></{0}invoke>'
)
STRING = ' string="true"'
QWEN = (
    "<function=write>\n<parameter=path>\n/srv/app/cache\n</parameter>\n"
    "<parameter=content>\nrm -rf it\n</parameter>\n</function>"
)
WRITTEN = {
    "harmony": f"<|channel|>commentary to=functions.write <|message|>{JSON}<|call|>",
    "dsml": f"<｜DSML｜tool_calls>{XML.format('｜DSML｜', STRING)}</｜DSML｜tool_calls>",
    "deepseek": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>write<｜tool▁sep｜>{JSON}<｜tool▁call▁end｜>",
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.write:0"
    f"<|tool_call_argument_begin|>{JSON}<|tool_call_end|><|tool_calls_section_end|>",
    "minimax": f"<minimax:tool_call>{XML.format('', '')}</minimax:tool_call>",
    "seed_xml": f"<seed:tool_call>{QWEN}</seed:tool_call>",
    "qwen_xml": f"<tool_call>{QWEN}</tool_call>",
    "glm": "<tool_call>write\n<arg_key>path</arg_key>\n<arg_value>/srv/app/cache</arg_value>\n"
    "<arg_key>content</arg_key>\n<arg_value>rm -rf it</arg_value>\n</tool_call>",
    "glm4": f"write\n{JSON}",
    "gemma": '<|tool_call>call:write{path:<|"|>/srv/app/cache<|"|>,content:<|"|>rm -rf it<|"|>}'
    "<tool_call|>",
    "cohere": f"<|START_ACTION|>[{CALL}]<|END_ACTION|>",
    "granite20b": f"<function_call>{CALL}",
    "granite": f"<|tool_call|>[{CALL}]",
    "nemotron": f"<TOOLCALL>[{CALL}]</TOOLCALL>",
    "hunyuan": f"<tool_calls>[{CALL}]</tool_calls>",
    "phi4": f"functools[{CALL}]",
    "hermes": f"<tool_call>\n{CALL}\n</tool_call>",
    "mistral": f"[TOOL_CALLS]write[ARGS]{JSON}",
    "lfm2": '<|tool_call_start|>[write(path="/srv/app/cache", content="rm -rf it")]<|tool_call_end|>',
    "pythonic": '[write(path="/srv/app/cache", content="rm -rf it")]',
    "llama3_json": f'{{"name": "write", "parameters": {JSON}}}',
    "generic": CALL,
}


def cut_calls(name, output):
    """(arguments, incomplete) of each call of an output that was ended here from outside."""
    numbers = itertools.count()
    parser = formats.tool_parser(name, TOOLS, lambda: f"call_{next(numbers)}")
    calls: dict[int, tuple[str, bool]] = {}
    for piece in [*parser.feed(output), *parser.finish(is_cut=True)]:
        if isinstance(piece, ToolCallPiece):
            before, was_incomplete = calls.get(piece.index, ("", False))
            assert not was_incomplete
            calls[piece.index] = (before + piece.arguments_json, piece.incomplete)
    return list(calls.values())


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", WRITTEN)
def test_a_call_is_whole_or_it_is_marked_and_its_arguments_are_no_json(name):
    output = WRITTEN[name]
    marked = 0
    for length in range(len(output) + 1):
        for arguments, incomplete in cut_calls(name, output[:length]):
            marked += incomplete
            assert incomplete is not is_json(arguments)
            assert incomplete or json.loads(arguments) == ARGUMENTS

    assert marked or name in {"lfm2", "pythonic"}, "lists are told when they are whole"
    assert [(ARGUMENTS, False)] == [
        (json.loads(arguments), incomplete) for arguments, incomplete in cut_calls(name, output)
    ]


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_told_of_a_string_is_what_was_written(name):
    output = WRITTEN[name]
    last = cut_calls(name, output[: output.rindex("rm -rf it") + 4])

    assert all(arguments.endswith('"rm -') for arguments, _ in last)


def test_a_call_is_not_invented_from_its_name_alone():
    assert [] == cut_calls("hermes", '<tool_call>{"name": "write"')


def test_a_call_before_the_cut_stays_whole():
    whole = WRITTEN["hermes"]

    assert [(JSON, False), ('{"path": "/srv/a', True)] == cut_calls("hermes", whole + whole[:59])


def test_a_cut_word_stays_as_it_was_written():
    assert cut_calls("hermes", WRITTEN["hermes"].split(JSON)[0] + '{"a": 12') == [
        ('{"a": 12', True)
    ]
