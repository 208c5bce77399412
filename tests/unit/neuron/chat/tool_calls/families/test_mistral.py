"""Mistral: outputs as the models write them."""

import pytest

from tests.unit.neuron.chat.tool_calls.reading import OSLO, check_meaning

CASES = {
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
}


@pytest.mark.parametrize("case", CASES)
def test_an_output_means_what_its_model_meant(case):
    check_meaning(*CASES[case])
