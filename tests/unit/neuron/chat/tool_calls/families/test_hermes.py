"""Hermes and Qwen 2.5/3: outputs as the models write them, and how they slip."""

import pytest

from tests.unit.neuron.chat.tool_calls.reading import (
    CLOSE,
    NOW,
    OPEN,
    OSLO,
    check_meaning,
    check_slip,
)

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
}
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
    "nothing behind an opening marker": ("hermes", f"ok {OPEN}", (f"ok {OPEN}", [], "")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_output_means_what_its_model_meant(case):
    check_meaning(*CASES[case])


@pytest.mark.parametrize("case", SLIPS)
def test_a_slip_is_mended_and_nothing_is_lost(case):
    check_slip(*SLIPS[case])
