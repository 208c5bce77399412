"""Cohere, Granite, Nemotron, Hunyuan and Phi-4: outputs as the models write them, and how they slip."""

import pytest

from tests.unit.neuron.chat.tool_calls.reading import OPEN, OSLO, check_meaning, check_slip

CASES = {
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
}
SLIPS = {
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
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_output_means_what_its_model_meant(case):
    check_meaning(*CASES[case])


@pytest.mark.parametrize("case", SLIPS)
def test_a_slip_is_mended_and_nothing_is_lost(case):
    check_slip(*SLIPS[case])
