"""What recordings of real models taught: how they slip, told in words of our own.

Each is read whole, one character at a time and in halves; see tests/recorded for the real ones.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.neuron.chat.stream import TextPiece, ToolCallPiece
from services.neuron.chat.tool_calls import formats
from services.neuron.chat.tool_calls.parsing.calls import Tools
from tests.unit.neuron.chat.tool_calls.test_formats import TOOLS, read

OSLO = ("call_0", "get_weather", {"city": "Oslo"})
NOW: tuple[str, str, dict[str, object]] = ("call_0", "now", {})
OPEN, CLOSE = "<tool_call>", "</tool_call>"
PAIR = "<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n"

SLIPS = {
    "Python's quotes": (
        "hermes",
        f"""{OPEN}{{'name': 'get_weather', 'arguments': {{'city': 'Oslo'}}}}{CLOSE}""",
        ("", [OSLO], "Python"),
    ),
    "Python's quotes around JSON's": (
        "hermes",
        f"""{OPEN}{{"arguments": {{"city": 'the "big" one'}}, "name": 'get_weather'}}{CLOSE}""",
        ("", [("call_0", "get_weather", {"city": 'the "big" one'})], "Python"),
    ),
    "an apostrophe in Python's quotes": (
        "hermes",
        f"""{OPEN}{{"name": "write", "arguments": {{"path": 'it\\'s'}}}}{CLOSE}""",
        ("", [("call_0", "write", {"path": "it's"})], "Python"),
    ),
    "Python's names": (
        "hermes",
        f'{OPEN}{{"name": "get_weather", "arguments": {{"metric": True, "days": None,'
        f' "tags": [False, None]}}}}{CLOSE}',
        (
            "",
            [("call_0", "get_weather", {"metric": True, "days": None, "tags": [False, None]})],
            "Python",
        ),
    ),
    "a backslash too few": (
        "hermes",
        f'{OPEN}{{"name": "write", "arguments": {{"content": "\\d+ \\\\d \\n\\_"}}}}{CLOSE}',
        ("", [("call_0", "write", {"content": "\\d+ \\d \n\\_"})], "backslash"),
    ),
    "commas before the end": (
        "hermes",
        f'{OPEN}{{"name": "get_weather", "arguments": {{"tags": [1, 2, ], "days": 3,}},}}{CLOSE}',
        ("", [("call_0", "get_weather", {"tags": [1, 2], "days": 3})], "comma"),
    ),
    "a brace too few, name first": (
        "hermes",
        f'{OPEN}\n{{"name": "get_weather", "arguments": {{"city": "Oslo"}}\n{CLOSE}\nok',
        ("\nok", [OSLO], ""),
    ),
    "a brace too few, name inside": (
        "hermes",
        f'{OPEN}{{"arguments": {{"city": "Oslo", "name": "get_weather"}}{CLOSE}',
        ("", [OSLO], "inside the arguments"),
    ),
    "a brace too few at the end of all": (
        "hermes",
        f'{OPEN}{{"arguments": {{"city": "Oslo"}}, "name": "get_weather"',
        ("", [OSLO], "the output ended"),
    ),
    "a list whose call lacks a brace": (
        "hermes",
        f'{OPEN}[{{"name": "now", "arguments": {{}}, {{"name": "now", "arguments": {{}}}}]{CLOSE}',
        ("", [NOW, ("call_1", "now", {})], "no JSON"),
    ),
    "arguments beside the name": (
        "hermes",
        f'{OPEN}{{"name": "get_weather", "city": "Oslo"}}{CLOSE}',
        ("", [OSLO], "beside the name"),
    ),
    "something else beside the name": (
        "hermes",
        f'{OPEN}{{"arguments": {{"city": "Oslo"}}, "name": "get_weather", "mood": 1}}{CLOSE}',
        ("", [OSLO], "left out 'mood': 1"),
    ),
    "something else behind the arguments": (
        "hermes",
        f'{OPEN}{{"name": "get_weather", "arguments": {{"city": "Oslo"}}, "id": "x", "mood": 1}}{CLOSE}',
        ("", [OSLO], "left out 'mood': 1"),
    ),
    "arguments closed too early": (
        "hermes",
        f'{OPEN}{{"arguments": {{"city": "Oslo"}}, "name": "get_weather", "days": 3}}{CLOSE}',
        ("", [("call_0", "get_weather", {"city": "Oslo", "days": 3})], "beside the name"),
    ),
    "a key twice": (
        "pythonic",
        "[get_weather(tags=[{'a': 'one', 'a': 2}])]",
        ("", [("call_0", "get_weather", {"tags": [{"a": 2}]})], "left out 'a': 'one'"),
    ),
    "arguments in a string, that JSON cannot spell": (
        "hermes",
        f'{OPEN}{{"name": "now", "arguments": "{{\\"a\\": NaN}}"}}{CLOSE}',
        (f'{OPEN}{{"name": "now", "arguments": "{{\\"a\\": NaN}}"}}{CLOSE}', [], ""),
    ),
    "arguments that are null": (
        "hermes",
        f'{OPEN}{{"name": "now", "arguments": null}}{CLOSE}',
        ("", [NOW], ""),
    ),
    "arguments that are no object": (
        "hermes",
        f'{OPEN}{{"name": "now", "arguments": [1]}}{CLOSE}',
        (f'{OPEN}{{"name": "now", "arguments": [1]}}{CLOSE}', [], ""),
    ),
    "text behind a broken call": (
        "hermes",
        f'{OPEN}{{"name": "get_weather", "arguments": {{"city": "Oslo", oops}}}}{CLOSE}',
        (f", oops}}}}{CLOSE}", [OSLO], "no JSON"),
    ),
    "no markers, in a fence": (
        "hermes",
        '```json\n{\n  "name": "get_weather",\n  "arguments": {"city": "Oslo"}\n}\n```',
        ("", [OSLO], "without its markers"),
    ),
    "no markers, two": (
        "hermes",
        '{"name": "now", "arguments": {}}\n{"name": "now", "arguments": {}}\nDone.',
        ("Done.", [NOW, ("call_1", "now", {})], "without its markers"),
    ),
    "no markers, and no tool of ours": (
        "hermes",
        '```json\n{"name": "Bob", "arguments": {"a": 1}}\n```',
        ('```json\n{"name": "Bob", "arguments": {"a": 1}}\n```', [], ""),
    ),
    "a fence of code, then a call": (
        "hermes",
        f'```python\nprint({{}})\n```\n{OPEN}{{"name": "now", "arguments": {{}}}}{CLOSE}',
        ("```python\nprint({})\n```\n", [NOW], ""),
    ),
    "no opening marker": (
        "qwen_xml",
        "I look.\n\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n"
        f"{CLOSE}",
        ("I look.\n\n", [OSLO], ""),
    ),
    "no opening marker twice": (
        "qwen_xml",
        "<function=now>\n</function>\n<function=now>\n</function>\n",
        ("", [NOW, ("call_1", "now", {})], ""),
    ),
    "a value's end twice": (
        "qwen_xml",
        f"{OPEN}\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</parameter>\n"
        f"<parameter=days>\n3\n</parameter>\n</function>\n{CLOSE}",
        ("", [("call_0", "get_weather", {"city": "Oslo", "days": 3})], "a second </parameter>"),
    ),
    "words between the tags": (
        "qwen_xml",
        f"{OPEN}\n<function=now>\nright away\n</function>\n{CLOSE}",
        (f"right away\n</function>\n{CLOSE}", [NOW], "</function> is missing"),
    ),
    "no region": (
        "minimax",
        'I look.\n<invoke name="get_weather">\n<parameter name="city">Oslo</parameter>\n</invoke>\n',
        ("I look.\n", [OSLO], ""),
    ),
    "the format, quoted": (
        "qwen_xml",
        "Write <function=example>, then <parameter=x>.",
        ("Write <function=example>, then <parameter=x>.", [], ""),
    ),
    "the format, quoted with a tool of ours": (
        "qwen_xml",
        "Write <function=now></function> for now.",
        ("Write <function=now></function> for now.", [], ""),
    ),
    "nothing behind an opening marker": ("hermes", f"ok {OPEN}", (f"ok {OPEN}", [], "")),
    "a value's end is missing": (
        "qwen_xml",
        f"{OPEN}\n<function=get_weather>\n<parameter=city>\nOslo\n</function>\n{CLOSE}ok",
        ("ok", [OSLO], "</parameter> is missing"),
    ),
    "a value that mentions the end": (
        "qwen_xml",
        f"{OPEN}\n<function=write>\n<parameter=path>\na\n</function>\nb\n</parameter>\n</function>\n"
        f"{CLOSE}",
        ("", [("call_0", "write", {"path": "a\n</function>\nb"})], ""),
    ),
    "a stray tag behind the name": (
        "glm",
        f"{OPEN}now</arg_value>\n{CLOSE}",
        ("", [NOW], "tag behind the name"),
    ),
    "no line break behind the name": (
        "glm",
        f"{OPEN}get_weather <arg_key>city</arg_key> <arg_value>Oslo</arg_value> {CLOSE}",
        ("", [OSLO], ""),
    ),
    "JSON for pairs": ("glm", f'{OPEN}get_weather {{"city": "Oslo"}}{CLOSE}', ("", [OSLO], "")),
    "Hermes for GLM": (
        "glm",
        f'{OPEN}{{"name": "get_weather", "arguments": {{"city": "Oslo"}}}}{CLOSE}',
        ("", [OSLO], ""),
    ),
    "a key without a value at a cut": (
        "glm",
        f"{OPEN}get_weather\n{PAIR}<arg_key>days</arg_key>",
        ("", [OSLO], "left out 'days'"),
    ),
    "half a key at a cut": (
        "glm",
        f"{OPEN}get_weather\n{PAIR}<arg_key>da",
        ("", [OSLO], "left out '<arg_key>da'"),
    ),
    "a key without a value": (
        "glm",
        f"{OPEN}get_weather\n{PAIR}<arg_key>days</arg_key>\n{CLOSE}ok",
        ("ok", [OSLO], "left out 'days'"),
    ),
    "a key without a value, then a pair": (
        "glm",
        f"{OPEN}get_weather\n<arg_key>days</arg_key>\n{PAIR}{CLOSE}ok",
        ("ok", [OSLO], "left out 'days'"),
    ),
    "values before their keys": (
        "glm",
        f"{OPEN}get_weather\n<arg_value>Oslo</arg_value>\n<arg_key>city</arg_key>\n"
        f"<arg_value>3</arg_value>\n<arg_key>days</arg_key>\n{CLOSE}",
        ("", [("call_0", "get_weather", {"city": "Oslo", "days": 3})], ""),
    ),
    "keys first, then values": (
        "glm",
        f"{OPEN}get_weather\n<arg_key>city</arg_key><arg_key>days</arg_key>"
        f"<arg_value>Oslo</arg_value><arg_value>3</arg_value>{CLOSE}",
        ("", [("call_0", "get_weather", {"city": "Oslo", "days": 3})], ""),
    ),
    "a value too many": (
        "glm",
        f"{OPEN}get_weather\n{PAIR}<arg_value>Bergen</arg_value>\n{CLOSE}",
        ("", [OSLO], "left out 'Bergen'"),
    ),
    "a key's beginning is missing": (
        "glm",
        f"{OPEN}get_weather\ncity</arg_key><arg_value>Oslo</arg_value>{CLOSE}",
        ("", [OSLO], "tag that is missing"),
    ),
    "a key's end is missing": (
        "glm",
        f"{OPEN}get_weather\n<arg_key>city\n<arg_value>Oslo</arg_value>{CLOSE}",
        ("", [OSLO], "tag that is missing"),
    ),
    "a value's beginning is missing": (
        "glm",
        f"{OPEN}get_weather\n<arg_key>city</arg_key>Oslo</arg_value>{CLOSE}",
        ("", [OSLO], "tag that is missing"),
    ),
    "a value's end is missing before a key": (
        "glm",
        f"{OPEN}get_weather\n<arg_key>city</arg_key><arg_value>Oslo\n<arg_key>days</arg_key>"
        f"<arg_value>3</arg_value>{CLOSE}",
        ("", [("call_0", "get_weather", {"city": "Oslo", "days": 3})], "tag that is missing"),
    ),
    "a value's end is missing at the end": (
        "glm",
        f"{OPEN}get_weather\n<arg_key>city</arg_key><arg_value>Oslo{CLOSE}\n",
        ("", [OSLO], ""),
    ),
    "a value that speaks of keys and of the end": (
        "glm",
        f"{OPEN}write\n<arg_key>content</arg_key><arg_value><arg_key>x</arg_key> {CLOSE}"
        f"</arg_value>{CLOSE}",
        ("", [("call_0", "write", {"content": f"<arg_key>x</arg_key> {CLOSE}"})], ""),
    ),
    "words between the pairs": (
        "glm",
        f"{OPEN}get_weather\n{PAIR}and so<arg_key>days</arg_key>\n<arg_value>3</arg_value>{CLOSE}",
        ("", [("call_0", "get_weather", {"city": "Oslo", "days": 3})], "left out 'and so'"),
    ),
    "JSON's quotes for tokens": (
        "gemma",
        '<|tool_call>call:get_weather{"city": "Oslo", tags:["a \\"b\\"", \'c\']}<tool_call|>ok',
        ("ok", [("call_0", "get_weather", {"city": "Oslo", "tags": ['a "b"', "c"]})], ""),
    ),
    "a quoting token behind other quotes": (
        "gemma",
        """<|tool_call>call:get_weather{city:'Oslo'<|"|>,days:3}<tool_call|>""",
        ("", [("call_0", "get_weather", {"city": "Oslo", "days": 3})], "quote too many"),
    ),
    "quotes of all kinds inside tokens": (
        "gemma",
        """<|tool_call>call:write{path:<|"|>it's "a\\b" <x|<|"|>}<tool_call|>""",
        ("", [("call_0", "write", {"path": 'it\'s "a\\b" <x|'})], ""),
    ),
    "a call as in Python": (
        "gemma",
        """<|tool_call>call:get_weather(city='Oslo', metric=True, days=None)<tool_call|>ok""",
        (
            "ok",
            [("call_0", "get_weather", {"city": "Oslo", "metric": True, "days": None})],
            "parentheses",
        ),
    ),
    "a call half as in Python": (
        "gemma",
        '<|tool_call>call:get_weather(city: "Oslo", tags=["(a)"])<tool_call|>',
        ("", [("call_0", "get_weather", {"city": "Oslo", "tags": ["(a)"]})], "parentheses"),
    ),
    "the opening marker forgotten": (
        "gemma",
        'So:\ncall:get_weather{city:<|"|>Oslo<|"|>}<tool_call|>',
        ("So:\n", [OSLO], ""),
    ),
    "words about a call": (
        "gemma",
        "call: me\ncall:was{a:1} or call:now{} it",
        ("call: me\ncall:was{a:1} or call:now{} it", [], ""),
    ),
    "a name with a scope": (
        "gemma",
        '<|tool_call>call:default_api:get_weather{city:<|"|>Oslo<|"|>}<tool_call|>',
        ("", [OSLO], ""),
    ),
    "a string without any quotes": (
        "gemma",
        "<|tool_call>call:write{path:a b.txt,content:1st}<tool_call|>ok",
        ("ok", [("call_0", "write", {"path": "a b.txt", "content": "1st"})], "quotes around"),
    ),
    "a text without any quotes": (
        "gemma",
        '<|tool_call>call:write{path:a(b)="c",d}<tool_call|>ok',
        ('a(b)="c",d}<tool_call|>ok', [("call_0", "write", {"path": None})], "no JSON"),
    ),
    "a value without quotes at a cut": (
        "gemma",
        "<|tool_call>call:get_weather{metric:tru",
        ("", [("call_0", "get_weather", {"metric": True})], "ended inside"),
    ),
    "values of all kinds": (
        "gemma",
        "<|tool_call>call:get_weather{days: -1.5e3 ,tags:[true,{a:null},[] ],city:{}}<tool_call|>",
        (
            "",
            [("call_0", "get_weather", {"days": -1500, "tags": [True, {"a": None}, []], "city": {}})],
            "",
        ),
    ),
    "arguments that are a string of JSON, between tokens": (
        "kimi",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.write:0"
        '<|tool_call_argument_begin|>"{\\"path\\": \\"a\\\\n\\u00e9\\"}"<|tool_call_end|>'
        "<|tool_calls_section_end|>",
        ("", [("call_0", "write", {"path": "a\né"})], "string of JSON"),
    ),
    "Hermes' marker for Granite's": (
        "granite",
        f'{OPEN}[{{"name": "get_weather", "arguments": {{"city": "Oslo"}}}}]',
        ("", [OSLO], ""),
    ),
    "tokens for Phi's marker": (
        "phi4",
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Oslo"}}]<|/tool_call|>ok',
        ("ok", [OSLO], ""),
    ),
    "tokens of many calls for Phi's marker": (
        "phi4",
        '<|tool_calls|>[{"name": "get_weather", "arguments": {"city": "Oslo"}}]<|/tool_calls|>ok',
        ("ok", [OSLO], ""),
    ),
    "words before the arguments": (
        "kimi",
        "<|tool_call_begin|>functions.now:0<|tool_call_argument_begin|>well {}<|tool_call_end|>",
        ("", [NOW], "left out 'well'"),
    ),
    "an id that a client made safe": (
        "kimi",
        "<|tool_call_begin|>functions_get_weather_1<|tool_call_argument_begin|>"
        '{"city": "Oslo"}<|tool_call_end|>',
        ("", [OSLO], ""),
    ),
    "a string that never ends": (
        "gemma",
        '<|tool_call>call:get_weather{tags:[{a:<|"|>{x} }<b}]}<tool_call|>ok',
        ("ok", [("call_0", "get_weather", {"tags": [{"a": "{x} }<b}]"}]})], "a quote"),
    ),
    "doubled bars and a space": (
        "dsml",
        'So.\n<｜｜DSML｜｜ calls>\n<｜｜DSML｜｜ invoke name="get_weather">\n'
        '<｜｜DSML｜｜ parameter name="city" string="true">Oslo</｜｜DSML｜｜ parameter>\n'
        "</｜｜DSML｜｜ invoke>\n</｜｜DSML｜｜ calls>",
        ("So.\n", [OSLO], ""),
    ),
    "doubled bars": (
        "dsml",
        '<｜｜DSML｜｜tool_calls>\n<｜｜DSML｜｜invoke name="get_weather">\n'
        '<｜｜DSML｜｜parameter name="city" string="true">Oslo</｜｜DSML｜｜parameter>\n'
        "</｜｜DSML｜｜invoke>\n</｜｜DSML｜｜tool_calls>ok",
        ("ok", [OSLO], ""),
    ),
    "chatter inside a call": (
        "glm",
        f"{OPEN}now\nand then\n{CLOSE}",
        (f"and then\n{CLOSE}", [NOW], ""),
    ),
    "a tool that is none of ours, marked": (
        "llama3_json",
        '<|python_tag|>{"name": "was", "parameters": {}}',
        ("", [("call_0", "was", {})], ""),
    ),
    "a tool that is none of ours, unmarked": (
        "llama3_json",
        '{"name": "was", "parameters": {}}',
        ('{"name": "was", "parameters": {}}', [], ""),
    ),
    "calls in quotes": (
        "pythonic",
        """["get_weather(city='Oslo')", "now()"]""",
        ("", [OSLO, ("call_1", "now", {})], "out of quotes"),
    ),
    "names in quotes": ("pythonic", "['get_weather'(city='Oslo')]", ("", [OSLO], "out of quotes")),
    "an object of arguments": ("pythonic", '[get_weather({"city": "Oslo"})]', ("", [OSLO], "")),
    "JSON's names": (
        "pythonic",
        "[get_weather(metric=true, days=null)]",
        ("", [("call_0", "get_weather", {"metric": True, "days": None})], ""),
    ),
    "what JSON cannot spell": (
        "pythonic",
        "[get_weather(city=...), now()]",
        ("[get_weather(city=...), now()]", [], ""),
    ),
    "a number without end": (
        "pythonic",
        "[get_weather(days=1e999)]",
        ("[get_weather(days=1e999)]", [], ""),
    ),
    "an argument twice": (
        "pythonic",
        "[get_weather(city='a', city='b')]",
        ("[get_weather(city='a', city='b')]", [], ""),
    ),
    "fence and end of call missing": (
        "deepseek",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Oslo"}<｜tool▁calls▁end｜>ok',
        ("ok", [OSLO], ""),
    ),
    "words behind the arguments": (
        "deepseek",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Oslo"} there'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ("there<｜tool▁call▁end｜><｜tool▁calls▁end｜>", [OSLO], ""),
    ),
    "a call that begins anew": (
        "deepseek",
        'so <｜tool▁call▁begin｜>hm <｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Oslo"}'
        "<｜tool▁call▁end｜>",
        ("so <｜tool▁call▁begin｜>hm ", [OSLO], ""),
    ),
    "the recipient before the channel": (
        "harmony",
        '<|channel|>analysis<|message|>Next.<|end|><|start|>assistant to=functions.get_weather'
        '<|channel|>commentary <|constrain|>json<|message|>{"city": "Oslo"}<|call|>',
        ("", [OSLO], ""),
    ),
    "a message to itself": (
        "harmony",
        "<|channel|>commentary to=assistant<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
        "<|channel|>final<|message|>Yes.",
        ("Yes.", [], ""),
    ),
    "a call that is no JSON": (
        "harmony",
        "<|channel|>commentary to=functions.now<|message|> print( 1 )<|call|>",
        ("print( 1 )", [], ""),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SLIPS, ids=list(SLIPS))
def test_a_slip_is_mended_and_nothing_is_lost(case):
    name, output, (text, calls, repair) = SLIPS[case]

    got_text, _, got_calls, repairs = read(name, [output])

    assert (text, calls) == (got_text, got_calls)
    assert repair in "; ".join(repairs)


@pytest.mark.parametrize("case", SLIPS, ids=list(SLIPS))
def test_a_slip_is_mended_alike_however_it_is_cut(case):
    name, output, _ = SLIPS[case]
    whole = read(name, [output])[:3]

    assert whole == read(name, list(output))[:3]
    for middle in range(len(output)):
        assert whole == read(name, [output[:middle], output[middle:]])[:3]


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
    assert '{"a": "\\ud800"}' == "".join(piece.arguments_json for piece in told)
    assert ["write"] == [piece.name for piece in told if piece.name]


def test_arguments_are_passed_on_as_they_are_written():
    parser = formats.tool_parser("hermes", TOOLS, lambda: "id")
    written = '{"a": 1.50, "a":  100e-6}'

    pieces = parser.feed(f'{OPEN}{{"arguments": {written}, "name": "now"}}{CLOSE}')

    assert [ToolCallPiece(0, "id", "now", written)] == list(pieces)


@pytest.mark.parametrize("name", ["hermes", "mistral", "llama3_json", "pythonic"])
def test_depth_without_end_is_text(name):
    marker = {"hermes": OPEN, "mistral": "[TOOL_CALLS]"}.get(name, "")
    output = marker + '{"name": "now", "arguments": {"a": ' + "[" * 5000

    _, _, calls, _ = read(name, [output + "]" * 5000 + "}}"])

    assert len(calls) <= 1
