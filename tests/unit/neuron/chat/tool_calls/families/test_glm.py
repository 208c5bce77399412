"""GLM 4.5 and later: outputs as the models write them, and how they slip."""

import pytest

from tests.unit.neuron.chat.tool_calls.reading import (
    CLOSE,
    NOW,
    OPEN,
    OSLO,
    check_meaning,
    check_slip,
)

PAIR = "<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n"
CASES = {
    "glm: typed by the schema": (
        "glm",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\nthen",
        ("\nthen", [("call_0", "get_weather", {"city": "Oslo", "days": 3})]),
    ),
    "glm: none": ("glm", "<tool_call>now\n</tool_call>", ("", [("call_0", "now", {})])),
}
SLIPS = {
    "a stray tag behind the name": (
        "glm",
        f"{OPEN}now</arg_value>\n{CLOSE}",
        ("", [NOW], "tag behind the name"),
    ),
    "no line break behind the name": (
        "glm",
        f"{OPEN}get_weather <arg_key>city</arg_key> <arg_value>Oslo</arg_value> {CLOSE}",
        ("", [OSLO], ""),
    ),
    "JSON for pairs": ("glm", f'{OPEN}get_weather {{"city": "Oslo"}}{CLOSE}', ("", [OSLO], "")),
    "Hermes for GLM": (
        "glm",
        f'{OPEN}{{"name": "get_weather", "arguments": {{"city": "Oslo"}}}}{CLOSE}',
        ("", [OSLO], ""),
    ),
    "a key without a value at a cut": (
        "glm",
        f"{OPEN}get_weather\n{PAIR}<arg_key>days</arg_key>",
        ("", [OSLO], "left out 'days'"),
    ),
    "half a key at a cut": (
        "glm",
        f"{OPEN}get_weather\n{PAIR}<arg_key>da",
        ("", [OSLO], "left out '<arg_key>da'"),
    ),
    "a key without a value": (
        "glm",
        f"{OPEN}get_weather\n{PAIR}<arg_key>days</arg_key>\n{CLOSE}ok",
        ("ok", [OSLO], "left out 'days'"),
    ),
    "a key without a value, then a pair": (
        "glm",
        f"{OPEN}get_weather\n<arg_key>days</arg_key>\n{PAIR}{CLOSE}ok",
        ("ok", [OSLO], "left out 'days'"),
    ),
    "values before their keys": (
        "glm",
        f"{OPEN}get_weather\n<arg_value>Oslo</arg_value>\n<arg_key>city</arg_key>\n"
        f"<arg_value>3</arg_value>\n<arg_key>days</arg_key>\n{CLOSE}",
        ("", [("call_0", "get_weather", {"city": "Oslo", "days": 3})], ""),
    ),
    "keys first, then values": (
        "glm",
        f"{OPEN}get_weather\n<arg_key>city</arg_key><arg_key>days</arg_key>"
        f"<arg_value>Oslo</arg_value><arg_value>3</arg_value>{CLOSE}",
        ("", [("call_0", "get_weather", {"city": "Oslo", "days": 3})], ""),
    ),
    "a value too many": (
        "glm",
        f"{OPEN}get_weather\n{PAIR}<arg_value>Bergen</arg_value>\n{CLOSE}",
        ("", [OSLO], "left out 'Bergen'"),
    ),
    "a key's beginning is missing": (
        "glm",
        f"{OPEN}get_weather\ncity</arg_key><arg_value>Oslo</arg_value>{CLOSE}",
        ("", [OSLO], "tag that is missing"),
    ),
    "a key's end is missing": (
        "glm",
        f"{OPEN}get_weather\n<arg_key>city\n<arg_value>Oslo</arg_value>{CLOSE}",
        ("", [OSLO], "tag that is missing"),
    ),
    "a value's beginning is missing": (
        "glm",
        f"{OPEN}get_weather\n<arg_key>city</arg_key>Oslo</arg_value>{CLOSE}",
        ("", [OSLO], "tag that is missing"),
    ),
    "a value's end is missing before a key": (
        "glm",
        f"{OPEN}get_weather\n<arg_key>city</arg_key><arg_value>Oslo\n<arg_key>days</arg_key>"
        f"<arg_value>3</arg_value>{CLOSE}",
        ("", [("call_0", "get_weather", {"city": "Oslo", "days": 3})], "tag that is missing"),
    ),
    "a value's end is missing at the end": (
        "glm",
        f"{OPEN}get_weather\n<arg_key>city</arg_key><arg_value>Oslo{CLOSE}\n",
        ("", [OSLO], ""),
    ),
    "a value that speaks of keys and of the end": (
        "glm",
        f"{OPEN}write\n<arg_key>content</arg_key><arg_value><arg_key>x</arg_key> {CLOSE}"
        f"</arg_value>{CLOSE}",
        ("", [("call_0", "write", {"content": f"<arg_key>x</arg_key> {CLOSE}"})], ""),
    ),
    "words between the pairs": (
        "glm",
        f"{OPEN}get_weather\n{PAIR}and so<arg_key>days</arg_key>\n<arg_value>3</arg_value>{CLOSE}",
        ("", [("call_0", "get_weather", {"city": "Oslo", "days": 3})], "left out 'and so'"),
    ),
    "chatter inside a call": (
        "glm",
        f"{OPEN}now\nand then\n{CLOSE}",
        (f"and then\n{CLOSE}", [NOW], ""),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_output_means_what_its_model_meant(case):
    check_meaning(*CASES[case])


@pytest.mark.parametrize("case", SLIPS)
def test_a_slip_is_mended_and_nothing_is_lost(case):
    check_slip(*SLIPS[case])
