import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.neuron.engine_api.events import Delta, EndReason, TokenLogprob
from services.neuron.engine_api.task import Prompt, StopParams, Task
from services.neuron.engines.common.transcript import Detokeniser, Transcript

PIECES = {1: b"one", 2: b" two", 3: b" three", 9: b"<end>"}


def transcript(stop: StopParams | None = None, *, room: int = 100, **fields: Any) -> Transcript:
    task = Task(7, "i", Prompt(), stop=stop or StopParams(), **fields)
    return Transcript(task, room_tokens=room, end_token_ids={9}, piece=PIECES.__getitem__)


def test_tokens_come_out_as_deltas() -> None:
    ours = transcript()

    ours.push(1)
    ours.push(2)

    assert ours.take() == Delta(7, "one two", (1, 2))
    assert ours.take() is None


def test_held_back_text_still_tells_its_tokens() -> None:
    ours = transcript(StopParams(strings=("one two three",)))

    ours.push(1)

    assert ours.take() == Delta(7, "", (1,))


def test_the_end_token_is_not_counted() -> None:
    ours = transcript()
    ours.push(1)

    ours.push(9)

    assert ours.reason is EndReason.END_OF_TURN
    assert ours.token_count == 1
    assert ours.take() == Delta(7, "one", (1,))


def test_an_end_token_that_does_not_end_has_no_text() -> None:
    ours = transcript(StopParams(ignore_eos=True))

    ours.push(9)

    assert ours.reason is None
    assert ours.take() == Delta(7, "", (9,))


def test_end_tokens_are_banned_while_the_output_is_too_short() -> None:
    ours = transcript(StopParams(min_tokens=1, token_ids=(3,)))

    assert ours.banned_end_ids == {3, 9}
    ours.push(1)
    assert ours.banned_end_ids == frozenset()


def test_stop_strings_count_only_behind_min_tokens() -> None:
    ours = transcript(StopParams(min_tokens=2, strings=("one", "three")))

    ours.push(1)
    ours.push(2)
    ours.push(3)

    assert ours.take() == Delta(7, "one two ", (1, 2, 3))
    assert ours.stop_string == "three"


def test_what_was_held_back_is_shown_at_the_end() -> None:
    ours = transcript(StopParams(strings=("one two three",), max_tokens=2))

    ours.push(1)
    ours.push(2)

    assert ours.reason is EndReason.MAX_TOKENS
    assert ours.take() == Delta(7, "one two", (1, 2))


def test_the_room_bounds_max_tokens() -> None:
    assert transcript(StopParams(max_tokens=50), room=3).limit == 3
    assert transcript(room=3).limit == 3
    assert transcript(StopParams(max_tokens=0)).reason is EndReason.MAX_TOKENS


def test_credit_is_spent_and_refilled() -> None:
    ours = transcript(credit_tokens=1)

    ours.push(1)

    assert not ours.has_credit
    ours.add_credit(1)
    assert ours.has_credit


def test_without_a_limit_credit_never_ends() -> None:
    ours = transcript()
    ours.add_credit(5)
    ours.push(1)

    assert ours.has_credit


def test_resumed_text_is_not_sent_again_but_what_was_held_back_is() -> None:
    ours = transcript(StopParams(strings=(" two three",)), resume_token_ids=(1, 2))

    ours.push(1)

    assert ours.take() == Delta(7, " twoone", (1,))
    assert ours.token_count == 3


def test_a_stop_string_before_min_tokens_ends_no_resumed_output() -> None:
    ours = transcript(
        StopParams(strings=("one",), min_tokens=2), resume_token_ids=(1, 3, 3), tells_resumed=True
    )

    assert ours.reason is None
    assert ours.token_count == 3
    assert ours.resumed_texts == ("one", " three", " three")


def test_logprobs_travel_with_their_tokens() -> None:
    ours = transcript()
    entry = TokenLogprob(1, b"one", -0.5)

    ours.push(1, entry)

    assert ours.take() == Delta(7, "one", (1,), (entry,))


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
