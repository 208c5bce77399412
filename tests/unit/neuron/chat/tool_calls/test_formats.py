"""What holds for every format, and how a template tells which one it is; see `families`."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.backplane.errors import FleetError
from services.neuron.chat.stream import ToolCallPiece
from services.neuron.chat.tool_calls import formats
from tests.unit.neuron.chat.tool_calls.reading import TOOLS, read
from tests.unit.neuron.chat.tool_calls.test_cut import WRITTEN


def told(name, chunks):
    """As `read`; repairs that came one by one are the same as those that came together."""
    text, reasoning, calls, repairs = read(name, chunks)
    return text, reasoning, calls, "; ".join(repairs)


NAMES = [
    "harmony", "dsml", "deepseek", "kimi", "minimax", "seed_xml", "qwen_xml", "glm", "glm4", "gemma", "cohere", "granite20b",
    "granite", "nemotron", "hunyuan", "phi4", "hermes", "mistral", "lfm2", "pythonic", "llama3_json",
    "generic",
]  # fmt: skip
SHARDS = [
    "<tool_call>", "</tool_call>", '{"name": "now", ', '"arguments": {', "}}", "}", '"', "\\", "[",
    "]", "<function=now>", "<parameter=a>", "</parameter>", "</function>", "<arg_key>", "</arg_key>",
    "<arg_value>", "</arg_value>", "now", "[TOOL_CALLS]", "[ARGS]", "<|channel|>", "<|message|>",
    "final", "analysis", "<|end|>", "<|call|>", " to=functions.now ", "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "now(", ")", "1", ",", ":", "\n",
    " ", "é", "🙂", ";", "<", "'", "True", "None", "```json\n", "```", "<tool_calls>", "</tool_calls>",
    "<TOOLCALL>", "<|tool_call|>", "functools", "<|START_ACTION|>", "<|END_ACTION|>", "</tool",
    "<|START_RESPONSE|>", "<|tool_call>", "call:now", '<|"|>', "<tool_call|>", "{", "a:", '"name"',
    "<|tool_calls_section_begin|>", "<|tool_call_begin|>", "functions.now:0", "<|tool_call_end|>",
    "<|tool_call_argument_begin|>", "<｜DSML｜tool_calls>", '<｜DSML｜invoke name="now">', "</｜DSML｜invoke>",
    '<｜DSML｜parameter name="a" string="true">', "</｜DSML｜parameter>", "</｜DSML｜tool_calls>",
    "<｜｜DSML｜｜ calls>", '<｜｜DSML｜｜ invoke name="now">', "</｜｜DSML｜｜ invoke>", "}<tool_call|>", "=",
    "call:now(", '\\"', "functions_now_1", "<|/tool_call|>", "<|tool_calls|>",
    "<function_call>", "now\n", "<seed:tool_call>", "<minimax:tool_call>", '<invoke name="now">', "<｜tool▁calls▁end｜>",
    "<|tool_call_start|>", "<|tool_call_end|>", "<|python_tag|>",
]  # fmt: skip


@given(
    st.sampled_from(NAMES),
    st.lists(st.sampled_from(SHARDS), max_size=14).map("".join),
    st.lists(st.integers(0, 200), max_size=5),
)
def test_no_chunking_changes_anything_and_arguments_are_always_json(name, output, cuts):
    edges = sorted({cut % (len(output) + 1) for cut in cuts} | {0, len(output)})
    chunks = [output[a:b] for a, b in itertools.pairwise(edges)]

    assert told(name, [output]) == told(name, chunks) == told(name, list(output))


@given(
    st.sampled_from(NAMES), st.text(alphabet=st.characters(exclude_characters="<[{`"), max_size=40)
)
def test_text_without_calls_is_never_changed(name, output):
    text, _, calls, _ = read(name, list(output))

    assert (output, []) == (text, calls)


@pytest.mark.parametrize(
    ("output", "repair"),
    [
        ('<tool_call>{"name": "now", "arguments": {"a": "b', "the output ended"),
        ('<tool_call>{"name": "now", "arguments": {"a": oops}}', "put quotes"),
        ('<tool_call>{"name": "now", "arguments": "{}"}</tool_call>', "string of JSON"),
        ('<tool_call>{"arguments": {"city": "x"}}</tool_call>', "inferred"),
        ('<tool_call>{"name": "write", "arguments": {"path": "a\nb"}}</tool_call>', "escaped"),
    ],
)
def test_a_repair_is_visible(output, repair):
    _, _, calls, repairs = read("hermes", [output])

    assert calls
    assert repair in " ".join(repairs)


def test_arguments_come_as_they_are_written():
    parser = formats.tool_parser("hermes", TOOLS, lambda: "id")
    parser.feed('<tool_call>{"name": "write", "arguments": {"path": "a", "content": "')

    pieces = parser.feed("a long text")

    assert [ToolCallPiece(0, arguments_json="a long text")] == pieces


def test_harmony_splits_reasoning():
    output = (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>hi"
    )

    assert ("hi", "hm") == read("harmony", list(output))[:2]


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("... <tool_call>\n{{ tool | tojson }} </tool_call>", "hermes"),
        ("<tool_call><function=x><parameter=y>", "qwen_xml"),
        ("<seed:tool_call><function=x><parameter=y>", "seed_xml"),
        ("<tool_call>{{ name }}<arg_key>", "glm"),
        ("[TOOL_CALLS]", "mistral"),
        ("<｜tool▁calls▁begin｜>", "deepseek"),
        ("{% set dsml_token = '｜DSML｜' %}", "dsml"),
        ("<minimax:tool_call><invoke name=", "minimax"),
        ("<|tool_calls_section_begin|>", "kimi"),
        ("<|tool_call>call:", "gemma"),
        ("<|START_ACTION|>", "cohere"),
        ("<|tool_call|>", "granite"),
        ("<|observation|>", "glm4"),
        ("<|observation|><arg_key>", "glm"),
        ("<function_call>", "granite20b"),
        ("<TOOLCALL>", "nemotron"),
        ("<tool_calls>", "hunyuan"),
        ("with functools marker", "phi4"),
        ("<|tool_list_start|>", "lfm2"),
        ("<|channel|>final<|message|>", "harmony"),
        ("[func_name1(params_name1=params_value1)]", "pythonic"),
        ('{"name": function name, "parameters": dictionary of argument name', "llama3_json"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "generic"),
    ],
)
def test_a_template_tells_its_format(template, name):
    assert name == formats.tool_format("", template + "{{ tools }}")
    assert "mistral" == formats.tool_format("mistral", template)


def test_a_template_that_knows_calls_but_shows_no_tools_is_generic():
    assert "generic" == formats.tool_format("", "<｜tool▁calls▁begin｜>{{ messages }}")


def test_an_unknown_format_is_refused_with_the_known_ones():
    with pytest.raises(FleetError, match="hermes"):
        formats.tool_format("klingon", "")


@pytest.mark.parametrize("name", WRITTEN)
def test_blanks_around_calls_are_no_text(name):
    one = WRITTEN[name]
    behind = "\n" if name in {"llama3_json", "pythonic", "glm4", "generic"} else "\n \n"
    output = f"\n{one}{behind}{one}\n"

    text, _, calls, _ = read(name, [output])

    assert "" == text
    assert len(calls) in {1, 2}  # some formats have but one list
    assert told(name, [output]) == told(name, list(output))


def test_blanks_before_text_stay():
    call = WRITTEN["hermes"]

    assert "\n\nNow: \n" == read("hermes", [f"{call}\n\nNow: \n{call}"])[0]
    assert " \n" == read("hermes", [" \n"])[0]
