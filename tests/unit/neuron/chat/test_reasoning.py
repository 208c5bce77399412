from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.neuron.chat.reasoning import FORMATS, ReasoningParser, is_opened, markers_of
from services.neuron.chat.stream import PlainParser, ReasoningPiece, TextPiece, held_back

THINK = FORMATS["think"]


def read(parts: list[str], *, opened: bool = False) -> tuple[str, str]:
    parser = ReasoningParser(THINK, opened=opened)
    pieces = [piece for part in parts for piece in parser.feed(part)]
    pieces += parser.finish()
    thought = "".join(piece.text for piece in pieces if isinstance(piece, ReasoningPiece))
    said = "".join(piece.text for piece in pieces if isinstance(piece, TextPiece))
    return thought, said


CASES = [
    ("<think>\nhm\n</think>\n\nYes", False, ("hm", "Yes")),
    ("hm\n</think>\n\nYes", True, ("hm", "Yes")),
    ("Yes", False, ("", "Yes")),
    ("  \n<think>a</think>b", False, ("a", "b")),
    ("The tag <think> is quoted </think>", False, ("", "The tag <think> is quoted </think>")),
    ("<think>cut off", False, ("cut off", "")),
    ("cut off </thi", True, ("cut off </thi", "")),
    ("<think>a\n\nb</think>", False, ("a\n\nb", "")),
    ("<think></think>Yes", False, ("", "Yes")),
    ("a </b> c</think>d", True, ("a </b> c", "d")),
    ("<thi", False, ("", "<thi")),
    ("", True, ("", "")),
]


@pytest.mark.parametrize(("text", "opened", "expected"), CASES)
def test_reasoning_is_split_from_the_answer(text, opened, expected):
    assert read([text], opened=opened) == expected


@pytest.mark.parametrize(("text", "opened", "expected"), CASES)
def test_one_character_at_a_time_gives_the_same(text, opened, expected):
    assert read(list(text), opened=opened) == expected


@given(st.sampled_from(CASES), st.lists(st.integers(1, 7), max_size=30))
def test_any_cutting_gives_the_same(case, lengths):
    text, opened, expected = case
    parts = []
    for length in lengths:
        parts.append(text[:length])
        text = text[length:]

    assert read([*parts, text], opened=opened) == expected


def test_nothing_certain_is_held_back():
    parser = ReasoningParser(THINK, opened=True)

    assert list(parser.feed("Let me")) == [ReasoningPiece("Let me")]
    assert parser.is_reasoning
    assert list(parser.feed(" see</thi")) == [ReasoningPiece(" see")]
    parser.feed("nk>")
    assert not parser.is_reasoning
    assert list(parser.feed("\n\nYes")) == [TextPiece("Yes")]
    assert list(parser.feed(" sir")) == [TextPiece(" sir")]


def test_the_answer_goes_to_the_next_parser():
    class Shout(PlainParser):
        def feed(self, text):
            return (TextPiece(text.upper()),)

        def finish(self, *, is_cut=False):
            return (TextPiece("!"),)

    parser = ReasoningParser(THINK, opened=False, answer=Shout())

    pieces = [*parser.feed("<think>a</think>b"), *parser.feed("c"), *parser.finish()]

    assert pieces == [ReasoningPiece("a"), TextPiece("B"), TextPiece("C"), TextPiece("!")]


@pytest.mark.parametrize(
    ("tail", "opened"),
    [
        ("assistant\n<think>\n", True),
        ("assistant\n", False),
        ("<think>\n\n</think>\n\n", False),
        ("<think>a</think><think>", True),
    ],
)
def test_a_prompt_may_have_opened_it(tail, opened):
    assert is_opened(tail, THINK) is opened


@pytest.mark.parametrize(
    ("source", "markers"),
    [
        ("{{ '<think>' }}", THINK),
        ("content.split('</think>')", THINK),
        ("[THINK]", FORMATS["mistral"]),
        ("plain", None),
    ],
)
def test_a_template_tells_its_markers(source, markers):
    assert markers_of(source) == markers


@pytest.mark.parametrize(
    ("text", "length"), [("abc<", 1), ("abc</th", 4), ("abc", 0), ("</think>", 0), ("", 0)]
)
def test_the_beginning_of_a_marker_is_held_back(text, length):
    assert held_back(text, "</think>") == length
