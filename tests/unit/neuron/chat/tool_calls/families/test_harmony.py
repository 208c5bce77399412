"""Harmony: outputs as the models write them, and how they slip."""

import pytest

from tests.unit.neuron.chat.tool_calls.reading import OSLO, check_meaning, check_slip

CASES = {
    "harmony: think, call": (
        "harmony",
        "<|channel|>analysis<|message|>Need weather.<|end|><|start|>assistant<|channel|>commentary"
        ' to=functions.get_weather <|constrain|>json<|message|>{"city": "Oslo"}<|call|>',
        ("", [OSLO]),
    ),
    "harmony: answer": (
        "harmony",
        "<|channel|>final<|message|>It is <b>cold</b>.<|return|>",
        ("It is <b>cold</b>.", []),
    ),
    "harmony: no channel at all": ("harmony", "Hello", ("Hello", [])),
}
SLIPS = {
    "the recipient before the channel": (
        "harmony",
        '<|channel|>analysis<|message|>Next.<|end|><|start|>assistant to=functions.get_weather'
        '<|channel|>commentary <|constrain|>json<|message|>{"city": "Oslo"}<|call|>',
        ("", [OSLO], ""),
    ),
    "a message to itself": (
        "harmony",
        "<|channel|>commentary to=assistant<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
        "<|channel|>final<|message|>Yes.",
        ("Yes.", [], ""),
    ),
    "a call that is no JSON": (
        "harmony",
        "<|channel|>commentary to=functions.now<|message|> print( 1 )<|call|>",
        ("print( 1 )", [], ""),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_output_means_what_its_model_meant(case):
    check_meaning(*CASES[case])


@pytest.mark.parametrize("case", SLIPS)
def test_a_slip_is_mended_and_nothing_is_lost(case):
    check_slip(*SLIPS[case])
