"""DeepSeek V3, R1 and V3.1: outputs as the models write them, and how they slip."""

import pytest

from tests.unit.neuron.chat.tool_calls.reading import OSLO, check_meaning, check_slip

CASES = {
    "deepseek: V3": (
        "deepseek",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Oslo"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        ("", [OSLO]),
    ),
    "deepseek: V3.1, two": (
        "deepseek",
        "ok<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
        '{"city": "Oslo"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ("ok", [OSLO, ("call_1", "now", {})]),
    ),
}
SLIPS = {
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
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_output_means_what_its_model_meant(case):
    check_meaning(*CASES[case])


@pytest.mark.parametrize("case", SLIPS)
def test_a_slip_is_mended_and_nothing_is_lost(case):
    check_slip(*SLIPS[case])
