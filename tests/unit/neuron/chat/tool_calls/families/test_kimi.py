"""Kimi K2: outputs as the models write them, and how they slip."""

import pytest

from tests.unit.neuron.chat.tool_calls.reading import NOW, OSLO, check_meaning, check_slip

CASES = {
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
}
SLIPS = {
    "arguments that are a string of JSON, between tokens": (
        "kimi",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.write:0"
        '<|tool_call_argument_begin|>"{\\"path\\": \\"a\\\\n\\u00e9\\"}"<|tool_call_end|>'
        "<|tool_calls_section_end|>",
        ("", [("call_0", "write", {"path": "a\né"})], "string of JSON"),
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
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_output_means_what_its_model_meant(case):
    check_meaning(*CASES[case])


@pytest.mark.parametrize("case", SLIPS)
def test_a_slip_is_mended_and_nothing_is_lost(case):
    check_slip(*SLIPS[case])
