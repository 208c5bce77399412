from services.neuron.engine_api.task import PromptMarks
from services.neuron.engines.common.marks import (
    MOST_MARKS,
    Mark,
    marks_of,
    saved_marks,
    with_mark,
)


def test_a_sequences_marks_are_bounded_and_its_first_stays() -> None:
    marks: list[Mark] = []
    for length in range(1, 1_000):
        marks = with_mark(marks, (length, length.to_bytes(16, "little")))

    assert len(marks) == MOST_MARKS
    assert marks[0][0] == 1
    assert marks[-1][0] == 999


def test_the_head_ends_before_its_control_token() -> None:
    names = PromptMarks(head=b"head", head_controls=2, whole=b"whole")

    found = marks_of(names, [1, 5, 5, 1, 5], prompt_tokens=5, control_ids={1})

    assert found == [(3, b"head"), (5, b"whole")]
    assert marks_of(None, [1], prompt_tokens=1, control_ids={1}) == []


def test_of_what_is_saved_the_first_and_the_last_name_are_told() -> None:
    marks = [(3, b"a"), (5, b"b"), (8, b"c"), (20, b"d")]

    assert saved_marks(marks, 9) == ((3, b"a"), (8, b"c"))
    assert saved_marks(marks[:1], 9) == ((3, b"a"),)
