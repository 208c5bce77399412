import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.neuron.engines.common.stop_strings import StopStrings


def run(strings: list[str], pieces: list[str], *, include: bool = False) -> tuple[str, str | None]:
    stops = StopStrings(strings, include=include)
    shown = ""
    for piece in pieces:
        text, found = stops.feed(piece)
        shown += text
        if found is not None:
            return shown, found
    return shown + stops.finish(), None


@pytest.mark.parametrize(
    ("strings", "pieces", "shown", "found"),
    [
        ([], ["any", "thing"], "anything", None),
        (["END"], ["go EN", "D on"], "go ", "END"),
        (["END"], ["go EN", "ough"], "go ENough", None),
        (["END"], ["go EN"], "go EN", None),
        (["ab", "abc"], ["xabc"], "x", "ab"),
        (["bc", "abc"], ["xabc"], "x", "abc"),
        (["aab"], ["aaab"], "a", "aab"),
        (["", "b"], ["ab"], "a", "b"),
        (["\n\n"], ["a\n", "\nb"], "a", "\n\n"),
    ],
)
def test_stop_strings(strings: list[str], pieces: list[str], shown: str, found: str | None) -> None:
    assert run(strings, pieces) == (shown, found)


def test_the_stop_string_may_be_kept() -> None:
    assert run(["END"], ["go EN", "D on"], include=True) == ("go END", "END")


def test_only_what_may_become_a_stop_string_is_held_back() -> None:
    stops = StopStrings(["\nUser:"])

    assert stops.feed("Hello\nUs") == ("Hello", None)
    assert stops.feed("e it") == ("\nUse it", None)


@given(
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    st.text("abc", max_size=24),
    st.lists(st.integers(0, 24), max_size=6),
    st.booleans(),
)
def test_any_cut_gives_the_same_outcome(
    strings: list[str], text: str, places: list[int], include: bool
) -> None:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]

    assert run(strings, pieces, include=include) == run(strings, [text], include=include)


@given(st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.text("abc", max_size=24))
def test_nothing_shown_holds_a_stop_string(strings: list[str], text: str) -> None:
    shown, found = run(strings, list(text))

    assert not any(string in shown for string in strings)
    assert text.startswith(shown)
    assert (found is None) == (not any(string in text for string in strings))


def test_time_is_linear_however_the_strings_are_made() -> None:
    """A matcher that looks at every prefix of such strings takes minutes."""
    strings = ["a" * 100_000 + "b", "ab" * 50_000 + "c"]
    begun = time.process_time()

    stops = StopStrings(strings)
    for _ in range(1_000):
        stops.feed("a" * 99 + "c")

    assert time.process_time() - begun < 5


def test_a_text_that_begins_again_within_a_stop_string_is_seen() -> None:
    assert run(["aabaaac"], ["aabaa", "baaac"]) == ("aab", "aabaaac")
