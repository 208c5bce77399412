"""templates without tools: outputs as the models write them."""

import pytest

from tests.unit.neuron.chat.tool_calls.reading import OSLO, check_meaning

CASES = {
    "generic, of a distilled DeepSeek": (
        "generic",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Oslo"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        ("", [OSLO]),
    ),
    "generic is read as hermes": (
        "generic",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>',
        ("", [OSLO]),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_output_means_what_its_model_meant(case):
    check_meaning(*CASES[case])
