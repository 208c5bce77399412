"""Llama 3.2 and 4, Python: outputs as the models write them, and how they slip."""

import pytest

from tests.unit.neuron.chat.tool_calls.reading import OSLO, check_meaning, check_slip

CASES = {
    "pythonic": (
        "pythonic",
        '[get_weather(city="Oslo", days=3), now()]',
        ("", [("call_0", "get_weather", {"city": "Oslo", "days": 3}), ("call_1", "now", {})]),
    ),
    "pythonic: a list that is an answer": ("pythonic", "[1, 2]", ("[1, 2]", [])),
}
SLIPS = {
    "a key twice": (
        "pythonic",
        "[get_weather(tags=[{'a': 'one', 'a': 2}])]",
        ("", [("call_0", "get_weather", {"tags": [{"a": 2}]})], "left out 'a': 'one'"),
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
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_output_means_what_its_model_meant(case):
    check_meaning(*CASES[case])


@pytest.mark.parametrize("case", SLIPS)
def test_a_slip_is_mended_and_nothing_is_lost(case):
    check_slip(*SLIPS[case])
