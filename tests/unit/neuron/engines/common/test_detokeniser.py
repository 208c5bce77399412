import itertools

from hypothesis import given
from hypothesis import strategies as st

from services.neuron.engines.common.transcript import Detokeniser


def decode(pieces: list[bytes]) -> list[str]:
    detokeniser = Detokeniser()
    return [*[detokeniser.feed(piece) for piece in pieces], detokeniser.finish()]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def test_a_character_comes_when_it_is_complete() -> None:
    assert decode([b"\xf0\x9f", b"\x91", b"\xa9!"]) == ["", "", "👩!", ""]


def test_bytes_that_are_no_text_become_marks() -> None:
    assert "".join(decode([b"a\xff", b"b"])) == "a\ufffdb"


def test_an_incomplete_character_becomes_a_mark_at_the_end() -> None:
    assert decode([b"\xe2\x82"]) == ["", "\ufffd"]


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=8))
def test_any_cut_gives_the_same_text(data: bytes, places: list[int]) -> None:
    assert "".join(decode(cut(data, places))) == "".join(decode([data]))


@given(st.text(max_size=30), st.lists(st.integers(0, 120), max_size=8))
def test_text_comes_back_and_no_piece_ends_inside_a_character(text: str, places: list[int]) -> None:
    shown = decode(cut(text.encode("utf-8", "surrogatepass"), places))

    assert "".join(shown) == text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
