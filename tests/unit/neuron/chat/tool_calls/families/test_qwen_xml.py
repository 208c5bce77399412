"""Qwen3-Coder and Seed: outputs as the models write them, and how they slip."""

import pytest

from tests.unit.neuron.chat.tool_calls.reading import (
    CLOSE,
    NOW,
    OPEN,
    OSLO,
    check_meaning,
    check_slip,
)

CASES = {
    "qwen xml: typed by the schema": (
        "qwen_xml",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n<parameter=metric>\ntrue\n</parameter>\n"
        "</function>\n</tool_call>",
        ("", [("call_0", "get_weather", {"city": "Oslo", "days": 3, "metric": True})]),
    ),
    "qwen xml: a long string with markup": (
        "qwen_xml",
        "I write.\n<tool_call>\n<function=write>\n<parameter=path>\na.html\n</parameter>\n"
        '<parameter=content>\n<p>\n  5 < 6 "q"\n\n</p>\n</parameter>\n</function>\n</tool_call>',
        (
            "I write.\n",
            [("call_0", "write", {"path": "a.html", "content": '<p>\n  5 < 6 "q"\n\n</p>'})],
        ),
    ),
    "qwen xml: none": (
        "qwen_xml",
        "<tool_call>\n<function=now>\n</function>\n</tool_call>",
        ("", [("call_0", "now", {})]),
    ),
    "qwen xml: cut off": (
        "qwen_xml",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nOs",
        ("", [("call_0", "get_weather", {"city": "Os"})]),
    ),
    "seed": (
        "seed_xml",
        "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Oslo</parameter>\n</function>\n"
        "</seed:tool_call>",
        ("", [OSLO]),
    ),
}
SLIPS = {
    "no opening marker": (
        "qwen_xml",
        "I look.\n\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n"
        f"{CLOSE}",
        ("I look.\n\n", [OSLO], ""),
    ),
    "no opening marker twice": (
        "qwen_xml",
        "<function=now>\n</function>\n<function=now>\n</function>\n",
        ("", [NOW, ("call_1", "now", {})], ""),
    ),
    "a value's end twice": (
        "qwen_xml",
        f"{OPEN}\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</parameter>\n"
        f"<parameter=days>\n3\n</parameter>\n</function>\n{CLOSE}",
        ("", [("call_0", "get_weather", {"city": "Oslo", "days": 3})], "a second </parameter>"),
    ),
    "words between the tags": (
        "qwen_xml",
        f"{OPEN}\n<function=now>\nright away\n</function>\n{CLOSE}",
        (f"right away\n</function>\n{CLOSE}", [NOW], "</function> is missing"),
    ),
    "the format, quoted": (
        "qwen_xml",
        "Write <function=example>, then <parameter=x>.",
        ("Write <function=example>, then <parameter=x>.", [], ""),
    ),
    "the format, quoted with a tool of ours": (
        "qwen_xml",
        "Write <function=now></function> for now.",
        ("Write <function=now></function> for now.", [], ""),
    ),
    "a value's end is missing": (
        "qwen_xml",
        f"{OPEN}\n<function=get_weather>\n<parameter=city>\nOslo\n</function>\n{CLOSE}ok",
        ("ok", [OSLO], "</parameter> is missing"),
    ),
    "a value that mentions the end": (
        "qwen_xml",
        f"{OPEN}\n<function=write>\n<parameter=path>\na\n</function>\nb\n</parameter>\n</function>\n"
        f"{CLOSE}",
        ("", [("call_0", "write", {"path": "a\n</function>\nb"})], ""),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_output_means_what_its_model_meant(case):
    check_meaning(*CASES[case])


@pytest.mark.parametrize("case", SLIPS)
def test_a_slip_is_mended_and_nothing_is_lost(case):
    check_slip(*SLIPS[case])
