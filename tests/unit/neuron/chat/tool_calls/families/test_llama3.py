"""Llama 3, JSON: outputs as the models write them, and how they slip."""

import pytest

from tests.unit.neuron.chat.tool_calls.reading import OSLO, check_meaning, check_slip

CASES = {
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
}
SLIPS: dict[str, tuple[str, str, tuple[str, list[tuple[str, str, dict[str, object]]], str]]] = {
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
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_output_means_what_its_model_meant(case):
    check_meaning(*CASES[case])


@pytest.mark.parametrize("case", SLIPS)
def test_a_slip_is_mended_and_nothing_is_lost(case):
    check_slip(*SLIPS[case])
