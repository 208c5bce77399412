"""Gemma 4: outputs as the models write them, and how they slip."""

import pytest

from tests.unit.neuron.chat.tool_calls.reading import OSLO, check_meaning, check_slip

CASES = {
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
}
SLIPS = {
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
    "a string that never ends": (
        "gemma",
        '<|tool_call>call:get_weather{tags:[{a:<|"|>{x} }<b}]}<tool_call|>ok',
        ("ok", [("call_0", "get_weather", {"tags": [{"a": "{x} }<b}]"}]})], "a quote"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_output_means_what_its_model_meant(case):
    check_meaning(*CASES[case])


@pytest.mark.parametrize("case", SLIPS)
def test_a_slip_is_mended_and_nothing_is_lost(case):
    check_slip(*SLIPS[case])
