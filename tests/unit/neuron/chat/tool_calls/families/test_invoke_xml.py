"""MiniMax and DeepSeek V3.2+: outputs as the models write them, and how they slip."""

import pytest

from tests.unit.neuron.chat.tool_calls.reading import OSLO, check_meaning, check_slip

CASES = {
    "minimax: two": (
        "minimax",
        'I look.\n<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Oslo'
        '</parameter>\n<parameter name="days">3</parameter>\n</invoke>\n<invoke name="now">\n'
        "</invoke>\n</minimax:tool_call>",
        (
            "I look.\n",
            [("call_0", "get_weather", {"city": "Oslo", "days": 3}), ("call_1", "now", {})],
        ),
    ),
    "dsml: V4, typed by the tags": (
        "dsml",
        'ok<｜DSML｜tool_calls>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city"'
        ' string="true">17</｜DSML｜parameter>\n<｜DSML｜parameter name="tags" string="false">[1, "a"]'
        "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
        ("ok", [("call_0", "get_weather", {"city": "17", "tags": [1, "a"]})]),
    ),
    "dsml: V3.2, line breaks of its own": (
        "dsml",
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="write">\n<｜DSML｜parameter name="path"'
        ' string="true">\na "b" <c>\n</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        '<｜DSML｜invoke name="now">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
        ("", [("call_0", "write", {"path": '\na "b" <c>\n'}), ("call_1", "now", {})]),
    ),
}
SLIPS = {
    "no region": (
        "minimax",
        'I look.\n<invoke name="get_weather">\n<parameter name="city">Oslo</parameter>\n</invoke>\n',
        ("I look.\n", [OSLO], ""),
    ),
    "doubled bars and a space": (
        "dsml",
        'So.\n<｜｜DSML｜｜ calls>\n<｜｜DSML｜｜ invoke name="get_weather">\n'
        '<｜｜DSML｜｜ parameter name="city" string="true">Oslo</｜｜DSML｜｜ parameter>\n'
        "</｜｜DSML｜｜ invoke>\n</｜｜DSML｜｜ calls>",
        ("So.\n", [OSLO], ""),
    ),
    "doubled bars": (
        "dsml",
        '<｜｜DSML｜｜tool_calls>\n<｜｜DSML｜｜invoke name="get_weather">\n'
        '<｜｜DSML｜｜parameter name="city" string="true">Oslo</｜｜DSML｜｜parameter>\n'
        "</｜｜DSML｜｜invoke>\n</｜｜DSML｜｜tool_calls>ok",
        ("ok", [OSLO], ""),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_output_means_what_its_model_meant(case):
    check_meaning(*CASES[case])


@pytest.mark.parametrize("case", SLIPS)
def test_a_slip_is_mended_and_nothing_is_lost(case):
    check_slip(*SLIPS[case])
