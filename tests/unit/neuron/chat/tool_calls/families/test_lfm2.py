"""LFM2: outputs as the models write them."""

import pytest

from tests.unit.neuron.chat.tool_calls.reading import OSLO, check_meaning

CASES = {
    "lfm2": (
        "lfm2",
        'Checking.<|tool_call_start|>[get_weather(city="Oslo"), now()]<|tool_call_end|> Done.',
        ("Checking. Done.", [OSLO, ("call_1", "now", {})]),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_output_means_what_its_model_meant(case):
    check_meaning(*CASES[case])
