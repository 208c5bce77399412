"""What a prompt has at least is never more than it has, and stops nobody for long."""

from __future__ import annotations

import re

import pytest

from services.neuron.engine_api.task import Prompt, Segment
from services.neuron.engines.common.prompt_tokens import (
    PIECE_CHARACTERS,
    min_token_counts,
    pieces,
    single_bytes,
)

LONGEST = 8
ASCII = bytes(range(128))


def count(text: str) -> int:
    """Words of eight letters at most, each with the blank before it."""
    return len(re.findall(r"\s?\S{1,7}|\s", text))


def least(text: str, kept_bytes: bytes = b"") -> list[int]:
    prompt = Prompt((Segment(text),))
    return list(min_token_counts(prompt, count=count, longest_token=LONGEST, kept_bytes=kept_bytes))


@pytest.mark.parametrize(
    "text", ["a word or two\n" * 50_000, "x" * 500_000, " " * 500_000, "é" * 300_000]
)
@pytest.mark.parametrize("kept_bytes", [b"", ASCII])
def test_it_rises_and_never_exceeds_the_count(text: str, kept_bytes: bytes) -> None:
    found = least(text, kept_bytes)

    assert found == sorted(found)
    assert len(found) > 2
    assert 0.9 * count(text) < found[-1] <= count(text)


def test_a_short_prompt_is_counted_exactly() -> None:
    assert least("a word or two")[-1] == count("a word or two")


def test_the_first_number_costs_no_tokenising() -> None:
    def never(text: str) -> int:
        raise AssertionError(text)

    prompt = Prompt((Segment("x" * 80), Segment("<|end|>", control=True), Segment("é" * 50)))
    numbers = min_token_counts(prompt, count=never, longest_token=LONGEST, kept_bytes=ASCII)

    assert next(numbers) == 10 + 1  # é has no bytes that are surely kept


def test_pieces_of_work_are_bounded() -> None:
    sizes: list[int] = []

    def measured(text: str) -> int:
        sizes.append(len(text))
        return len(text)

    prompt = Prompt((Segment("word " * 200_000),))
    numbers = min_token_counts(prompt, count=measured, longest_token=LONGEST, kept_bytes=b"")
    next(numbers)
    next(numbers)

    assert len(sizes) == 1
    assert PIECE_CHARACTERS / 2 <= sizes[0] <= PIECE_CHARACTERS


def test_control_tokens_and_token_ids_count_as_one() -> None:
    segments = (Segment("<|end|>", control=True), Segment("a b"), Segment("<|end|>", control=True))
    numbers = min_token_counts(Prompt(segments), count=count, longest_token=LONGEST, kept_bytes=b"")
    ids = min_token_counts(
        Prompt(token_ids=(1, 2, 3)), count=count, longest_token=1, kept_bytes=b""
    )

    assert list(numbers)[-1] == 3
    assert list(ids) == [3]


@pytest.mark.parametrize("text", ["", "short", "line\n" * 100_000, "a b " * 100_000, "x" * 400_000])
def test_pieces_joined_are_the_text(text: str) -> None:
    cut = list(pieces(text))

    assert "".join(cut) == text
    assert all(len(piece) <= PIECE_CHARACTERS for piece in cut)
    if "\n" in text:
        assert all(piece.startswith("\n") for piece in cut[1:])


def test_single_bytes_are_those_with_a_token() -> None:
    assert single_bytes([b"ab", b"b", b"\xff", b"", b"a", b"a"]) == b"ab\xff"
