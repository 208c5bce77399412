"""Every format, on outputs as real models write them, whole and one character at a time."""

import dataclasses
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.backplane.errors import FleetError
from services.neuron.chat.stream import ReasoningPiece, TextPiece, ToolCallPiece
from services.neuron.chat.tool_calls import formats
from services.neuron.chat.tool_calls.parsing.calls import Tools

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "metric": {"type": "boolean"},
        "tags": {"type": "array"},
    },
    "required": ["city"],
}
WRITE = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
    "required": ["path", "content"],
}
TOOLS = Tools({"get_weather": WEATHER, "write": WRITE, "now": {}})


def read(name, chunks, tools=TOOLS):
    """(text, reasoning, calls, repairs) of an output; calls as (id, name, parsed arguments)."""
    numbers = itertools.count()
    parser = formats.tool_parser(name, tools, lambda: f"call_{next(numbers)}")
    pieces = [piece for chunk in chunks for piece in parser.feed(chunk)]
    pieces += parser.finish()
    assert all(dataclasses.astuple(piece)[1:] != ("",) * 4 for piece in pieces)
    assert all(isinstance(piece, ToolCallPiece) or piece.text for piece in pieces)
    calls: dict[int, list[str]] = {}
    repairs: list[str] = []
    for piece in pieces:
        if isinstance(piece, ToolCallPiece):
            call = calls.setdefault(piece.index, ["", "", ""])
            call[0] += piece.call_id
            call[1] += piece.name
            call[2] += piece.arguments_json
            repairs += filter(None, [piece.repair])
    return (
        "".join(piece.text for piece in pieces if isinstance(piece, TextPiece)),
        "".join(piece.text for piece in pieces if isinstance(piece, ReasoningPiece)),
        [(one[0], one[1], json.loads(one[2])) for one in calls.values()],
        repairs,
    )


def told(name, chunks):
    """As `read`; repairs that came one by one are the same as those that came together."""
    text, reasoning, calls, repairs = read(name, chunks)
    return text, reasoning, calls, "; ".join(repairs)


OSLO = ("call_0", "get_weather", {"city": "Oslo"})
CASES = {
    "hermes: one": (
        "hermes",
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
        ("", [OSLO]),
    ),
    "hermes: text before and between": (
        "hermes",
        'Let me look.\n<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>'
        ' and <tool_call>{"name": "now", "arguments": {}}</tool_call> done',
        ("Let me look.\n and  done", [OSLO, ("call_1", "now", {})]),
    ),
    "hermes: arguments before the name": (
        "hermes",
        '<tool_call>{"arguments": {"city": "Oslo"}, "name": "get_weather"}</tool_call>',
        ("", [OSLO]),
    ),
    "hermes: nested arguments, numbers, escapes": (
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "O\\"slo \\u00e9", "days": 3,'
        ' "tags": [1, {"a": null}], "metric": true}, "x": 1}</tool_call>',
        (
            "",
            [
                (
                    "call_0",
                    "get_weather",
                    {"city": 'O"slo é', "days": 3, "tags": [1, {"a": None}], "metric": True},
                )
            ],
        ),
    ),
    "hermes: number as the last argument of the object": (
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": {"days": 3}}</tool_call>',
        ("", [("call_0", "get_weather", {"days": 3})]),
    ),
    "hermes: surplus braces": (
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}}}\n</tool_call>ok',
        ("ok", [OSLO]),
    ),
    "hermes: OpenAI's own nesting": (
        "hermes",
        '<tool_call>{"type": "function", "function": {"name": "get_weather",'
        ' "arguments": {"city": "Oslo"}}}</tool_call>',
        ("", [OSLO]),
    ),
    "hermes: arguments as a string": (
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}</tool_call>',
        ("", [OSLO]),
    ),
    "hermes: no name, one tool fits": (
        "hermes",
        '<tool_call>{"arguments": {"city": "Oslo"}}</tool_call>',
        ("", [OSLO]),
    ),
    "hermes: name inside the arguments": (
        "hermes",
        '<tool_call>{"arguments": {"name": "get_weather", "city": "Oslo"}}</tool_call>',
        ("", [OSLO]),
    ),
    "hermes: no arguments": (
        "hermes",
        '<tool_call>{"name": "now"}</tool_call>',
        ("", [("call_0", "now", {})]),
    ),
    "hermes: a list": (
        "hermes",
        '<tool_call>[{"name": "now", "arguments": {}}, {"name": "get_weather",'
        ' "arguments": {"city": "Oslo"}}]</tool_call>',
        ("", [("call_0", "now", {}), ("call_1", "get_weather", {"city": "Oslo"})]),
    ),
    "hermes: two in one region": (
        "hermes",
        '<tool_call>{"name": "now", "arguments": {}}\n{"name": "now", "arguments": {}}</tool_call>',
        ("", [("call_0", "now", {}), ("call_1", "now", {})]),
    ),
    "hermes: raw line break in a string": (
        "hermes",
        '<tool_call>{"name": "write", "arguments": {"path": "a", "content": "x\ny"}}</tool_call>',
        ("", [("call_0", "write", {"path": "a", "content": "x\ny"})]),
    ),
    "hermes: no closing marker": (
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}',
        ("", [OSLO]),
    ),
    "hermes: cut off in the arguments": (
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Osl',
        ("", [("call_0", "get_weather", {"city": "Osl"})]),
    ),
    "hermes: cut off before the name": ("hermes", '<tool_call>{"na', ('<tool_call>{"na', [])),
    "hermes: nothing like JSON": (
        "hermes",
        "<tool_call>get weather please</tool_call> ok",
        ("<tool_call>get weather please</tool_call> ok", []),
    ),
    "hermes: a marker that is only begun": ("hermes", "a <tool_ca", ("a <tool_ca", [])),
    "qwen xml: typed by the schema": (
        "qwen_xml",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n<parameter=metric>\ntrue\n</parameter>\n"
        "</function>\n</tool_call>",
        ("", [("call_0", "get_weather", {"city": "Oslo", "days": 3, "metric": True})]),
    ),
    "qwen xml: a long string with markup": (
        "qwen_xml",
        "I write.\n<tool_call>\n<function=write>\n<parameter=path>\na.html\n</parameter>\n"
        '<parameter=content>\n<p>\n  5 < 6 "q"\n\n</p>\n</parameter>\n</function>\n</tool_call>',
        (
            "I write.\n",
            [("call_0", "write", {"path": "a.html", "content": '<p>\n  5 < 6 "q"\n\n</p>'})],
        ),
    ),
    "qwen xml: none": (
        "qwen_xml",
        "<tool_call>\n<function=now>\n</function>\n</tool_call>",
        ("", [("call_0", "now", {})]),
    ),
    "qwen xml: cut off": (
        "qwen_xml",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nOs",
        ("", [("call_0", "get_weather", {"city": "Os"})]),
    ),
    "glm: typed by the schema": (
        "glm",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\nthen",
        ("\nthen", [("call_0", "get_weather", {"city": "Oslo", "days": 3})]),
    ),
    "glm: none": ("glm", "<tool_call>now\n</tool_call>", ("", [("call_0", "now", {})])),
    "llama3: the whole output": (
        "llama3_json",
        '{"name": "get_weather", "parameters": {"city": "Oslo"}}',
        ("", [OSLO]),
    ),
    "llama3: tagged, two": (
        "llama3_json",
        '<|python_tag|>{"name": "now", "parameters": {}}; {"name": "get_weather",'
        ' "parameters": {"city": "Oslo"}}',
        ("", [("call_0", "now", {}), ("call_1", "get_weather", {"city": "Oslo"})]),
    ),
    "llama3: JSON that is an answer": ("llama3_json", '{"name": "Bob"}', ('{"name": "Bob"}', [])),
    "llama3: text": ("llama3_json", "It is {cold}.", ("It is {cold}.", [])),
    "pythonic": (
        "pythonic",
        '[get_weather(city="Oslo", days=3), now()]',
        ("", [("call_0", "get_weather", {"city": "Oslo", "days": 3}), ("call_1", "now", {})]),
    ),
    "pythonic: a list that is an answer": ("pythonic", "[1, 2]", ("[1, 2]", [])),
    "mistral: a list": (
        "mistral",
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Oslo"}, "id": "abcdefghi"}]',
        ("", [OSLO]),
    ),
    "mistral: v11": (
        "mistral",
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]now[CALL_ID]x1[ARGS]{}',
        ("", [OSLO, ("call_1", "now", {})]),
    ),
    "deepseek: V3": (
        "deepseek",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Oslo"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        ("", [OSLO]),
    ),
    "deepseek: V3.1, two": (
        "deepseek",
        "ok<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
        '{"city": "Oslo"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ("ok", [OSLO, ("call_1", "now", {})]),
    ),
    "harmony: think, call": (
        "harmony",
        "<|channel|>analysis<|message|>Need weather.<|end|><|start|>assistant<|channel|>commentary"
        ' to=functions.get_weather <|constrain|>json<|message|>{"city": "Oslo"}<|call|>',
        ("", [OSLO]),
    ),
    "harmony: answer": (
        "harmony",
        "<|channel|>final<|message|>It is <b>cold</b>.<|return|>",
        ("It is <b>cold</b>.", []),
    ),
    "harmony: no channel at all": ("harmony", "Hello", ("Hello", [])),
    "generic, of a distilled DeepSeek": (
        "generic",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Oslo"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        ("", [OSLO]),
    ),
    "seed": (
        "seed_xml",
        "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Oslo</parameter>\n</function>\n"
        "</seed:tool_call>",
        ("", [OSLO]),
    ),
    "minimax: two": (
        "minimax",
        'I look.\n<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Oslo'
        '</parameter>\n<parameter name="days">3</parameter>\n</invoke>\n<invoke name="now">\n'
        "</invoke>\n</minimax:tool_call>",
        (
            "I look.\n",
            [("call_0", "get_weather", {"city": "Oslo", "days": 3}), ("call_1", "now", {})],
        ),
    ),
    "dsml: V4, typed by the tags": (
        "dsml",
        'ok<｜DSML｜tool_calls>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city"'
        ' string="true">17</｜DSML｜parameter>\n<｜DSML｜parameter name="tags" string="false">[1, "a"]'
        "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
        ("ok", [("call_0", "get_weather", {"city": "17", "tags": [1, "a"]})]),
    ),
    "dsml: V3.2, line breaks of its own": (
        "dsml",
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="write">\n<｜DSML｜parameter name="path"'
        ' string="true">\na "b" <c>\n</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        '<｜DSML｜invoke name="now">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
        ("", [("call_0", "write", {"path": '\na "b" <c>\n'}), ("call_1", "now", {})]),
    ),
    "kimi: two": (
        "kimi",
        "Let me see.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
        '<|tool_call_argument_begin|>{"city": "Oslo"}<|tool_call_end|><|tool_call_begin|>'
        "functions.now:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
        ("Let me see.", [OSLO, ("call_1", "now", {})]),
    ),
    "kimi: without its section": (
        "kimi",
        '<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Oslo"}'
        "<|tool_call_end|>",
        ("", [OSLO]),
    ),
    "gemma: everything in it": (
        "gemma",
        'I look.<|tool_call>call:get_weather{city:<|"|>O"s\\l\no <|<|"|>,days:3,metric:true,'
        'tags:[<|"|>a<|"|>,{deep:null}]}<tool_call|><|tool_call>call:now{}<tool_call|>'
        "<|tool_response>",
        (
            "I look.",
            [
                (
                    "call_0",
                    "get_weather",
                    {
                        "city": 'O"s\\l\no <|',
                        "days": 3,
                        "metric": True,
                        "tags": ["a", {"deep": None}],
                    },
                ),
                ("call_1", "now", {}),
            ],
        ),
    ),
    "gemma: cut off": (
        "gemma",
        '<|tool_call>call:get_weather{city:<|"|>Os',
        ("", [("call_0", "get_weather", {"city": "Os"})]),
    ),
    "cohere": (
        "cohere",
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters":'
        ' {"city": "Oslo"}}\n]<|END_ACTION|>',
        ("", [OSLO]),
    ),
    "cohere: an answer": (
        "cohere",
        "<|START_RESPONSE|>It is <b>cold</b>.<|END_RESPONSE|>",
        ("It is <b>cold</b>.", []),
    ),
    "granite": (
        "granite",
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Oslo"}}]',
        ("", [OSLO]),
    ),
    "granite20b: two": (
        "granite20b",
        '<function_call> {"name": "now", "arguments": {}} <function_call> {"name": "get_weather",'
        ' "arguments": {"city": "Oslo"}} ',
        ("", [("call_0", "now", {}), ("call_1", "get_weather", {"city": "Oslo"})]),
    ),
    "glm4: two": (
        "glm4",
        '\nget_weather\n{"city": "Oslo"}\nnow\n{}',
        ("", [OSLO, ("call_1", "now", {})]),
    ),
    "glm4: a name in a sentence": ("glm4", "now it is\nlate", ("now it is\nlate", [])),
    "glm4: a name and no object": ("glm4", "now\nit is late", ("now\nit is late", [])),
    "nemotron": (
        "nemotron",
        '<TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Oslo"}}]</TOOLCALL>',
        ("", [OSLO]),
    ),
    "hunyuan: a line each": (
        "hunyuan",
        'ok <tool_calls>\n{"name": "now", "arguments": {}}\n{"name": "get_weather", "arguments":'
        ' {"city": "Oslo"}}\n</tool_calls>',
        ("ok ", [("call_0", "now", {}), ("call_1", "get_weather", {"city": "Oslo"})]),
    ),
    "phi4": (
        "phi4",
        'functools[{"name": "get_weather", "arguments": {"city": "Oslo"}}]',
        ("", [OSLO]),
    ),
    "phi4: a module of Python's": (
        "phi4",
        "import functools\nx = functools.partial(f)",
        ("import functools\nx = functools.partial(f)", []),
    ),
    "lfm2": (
        "lfm2",
        'Checking.<|tool_call_start|>[get_weather(city="Oslo"), now()]<|tool_call_end|> Done.',
        ("Checking. Done.", [OSLO, ("call_1", "now", {})]),
    ),
    "generic is read as hermes": (
        "generic",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>',
        ("", [OSLO]),
    ),
}


@pytest.mark.parametrize("case", CASES, ids=list(CASES))
def test_an_output_means_what_its_model_meant(case):
    name, output, (text, calls) = CASES[case]

    got_text, _, got_calls, _ = read(name, [output])

    assert (text, calls) == (got_text, got_calls)


@pytest.mark.parametrize("case", CASES, ids=list(CASES))
def test_one_character_at_a_time_equals_the_whole(case):
    name, output, _ = CASES[case]

    assert read(name, [output]) == read(name, list(output))


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
        ('<tool_call>{"name": "now", "arguments": {"a": oops}}', "no JSON"),
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
