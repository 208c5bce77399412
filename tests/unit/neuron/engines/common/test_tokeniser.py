import pytest
from typing_extensions import override

from services.backplane.errors import FleetError
from services.neuron.engine_api.task import Prompt, Segment
from services.neuron.engines.common.tokeniser import Tokeniser, is_marker, split_points

BOS = 1


class Letters(Tokeniser):
    """One token per byte; a control segment is token 0."""

    def __init__(self, leading_bos_id: int | None = BOS) -> None:
        pieces = [bytes([i]) for i in range(128)]
        super().__init__(size=128, leading_bos_id=leading_bos_id, pieces=pieces, is_bytewise=True)

    @override
    def tokenize_plain(self, text: bytes) -> list[int]:
        return list(text)

    @override
    def _segment_ids(self, segment: Segment) -> list[int]:
        return [0] if segment.control else self.tokenize_plain(segment.text.encode())


def test_segments_become_ids_in_order() -> None:
    prompt = Prompt((Segment("a"), Segment("<x>", control=True), Segment("b"), Segment("c")))

    assert Letters().tokenize(prompt) == [97, 0, 98, 99]


def test_a_bos_token_is_put_before_once_and_only_where_it_is_wanted() -> None:
    assert Letters().tokenize(Prompt((Segment("a"),), add_bos=True)) == [BOS, 97]
    assert Letters().tokenize(Prompt((Segment("\x01a"),), add_bos=True)) == [BOS, 97]
    assert Letters().tokenize(Prompt((Segment("a"),))) == [97]
    assert Letters(None).tokenize(Prompt((Segment("a"),), add_bos=True)) == [97]


def test_an_unknown_token_id_is_refused_by_its_place() -> None:
    with pytest.raises(FleetError, match="128 is not in the vocabulary") as caught:
        Letters().tokenize(Prompt(token_ids=(5, 128)))

    assert caught.value.field == "token_ids.1"


def test_the_least_count_of_a_short_prompt_is_its_count() -> None:
    assert list(Letters().min_token_counts(Prompt((Segment("abc"),))))[-1] == 3


@pytest.mark.parametrize(
    ("text", "is_one"), [("<think>", True), ("[INST]", True), ("    ", False), ("<>", False)]
)
def test_markers_stand_in_brackets(text: str, *, is_one: bool) -> None:
    assert is_marker(text) is is_one


def test_text_is_cut_inside_markers_alone() -> None:
    assert split_points(["<a>", "<ab>"]).split("x<a><ab>y") == ["x<", "a><", "ab>y"]
    assert split_points([]).split("x<a>") == ["x<a>"]
