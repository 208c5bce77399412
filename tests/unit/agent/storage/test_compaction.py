from hypothesis import given
from hypothesis import strategies as st

from services.agent.core.history import (
    AssistantTurn,
    ImagePart,
    ResultsTurn,
    TextPart,
    ToolCall,
    ToolResult,
    Turn,
    UserTurn,
)
from services.agent.storage.compaction import Room, advance, estimate, prompt_budget
from services.agent.storage.projection import Marks, project

LONG = "x" * 3500


def conversation(rounds: int) -> list[Turn]:
    turns: list[Turn] = []
    for number in range(rounds):
        call = ToolCall(f"c{number}", "write_file", {"path": "a", "content": LONG})
        turns += [
            UserTurn((TextPart(LONG),)),
            AssistantTurn(text=LONG, calls=(call,)),
            ResultsTurn((ToolResult(f"c{number}", "write_file", LONG),)),
        ]
    return turns


def test_within_the_budget_nothing_is_left_out():
    turns = conversation(3)

    marks = advance(turns, Marks(), Room(estimate(turns)))

    assert Marks() == marks
    assert turns == project(turns, marks)


def test_results_go_first_and_oldest_first():
    turns = conversation(8)

    marks = advance(turns, Marks(), Room(estimate(turns) - 1))

    assert 0 < marks.results < len(turns) - 4
    assert 0 == marks.prose
    assert estimate(project(turns, marks)) <= 0.75 * estimate(turns)


def test_prose_goes_when_results_are_not_enough():
    turns = conversation(4)

    without = estimate(project(turns, Marks(8, 8)))

    marks = advance(turns, Marks(), Room(without))

    assert (8, 8) == (marks.results, marks.prose)
    assert Marks(8, 0) == advance(turns, Marks(), Room(without), is_only_results=True)


def test_the_last_turns_go_only_where_nothing_else_helps():
    turns = conversation(4)
    without = estimate(project(turns, Marks(8, 8)))

    assert advance(turns, Marks(), Room(without)) == Marks(8, 8)
    assert advance(turns, Marks(), Room(without - 1)).results > 8


def test_an_endpoint_that_counts_more_tokens_gets_less():
    turns = conversation(8)
    budget = estimate(turns) + 1

    assert advance(turns, Marks(), Room(budget)) == Marks()
    assert advance(turns, Marks(), Room(budget, characters_per_token=2.0)).results > 0


@given(st.integers(1, 8), st.integers(1, 40_000), st.integers(0, 30_000))
def test_user_turns_ids_and_the_last_turn_are_never_touched(
    rounds: int, budget: int, overhead: int
):
    turns = conversation(rounds)

    marks = advance(turns, Marks(), Room(budget, overhead))
    projected = project(turns, marks)

    assert len(turns) == len(projected)
    assert turns[-1] == projected[-1]
    assert [turn for turn in turns[-4:] if turn in projected] == turns[-4:] or (
        marks.prose >= max(len(turns) - 4, 0)  # all else was left out before
    )
    for before, after in zip(turns, projected, strict=True):
        if isinstance(before, UserTurn):
            assert before == after
        if isinstance(before, AssistantTurn):
            assert isinstance(after, AssistantTurn)
            assert [call.id for call in before.calls] == [call.id for call in after.calls]
        if isinstance(before, ResultsTurn):
            assert isinstance(after, ResultsTurn)
            assert [r.call_id for r in before.results] == [r.call_id for r in after.results]


@given(st.integers(2, 8), st.integers(1, 40_000))
def test_marks_only_move_forward_and_rest_after_a_move(rounds: int, budget: int):
    turns = conversation(rounds)
    first = advance(turns[:-3], Marks(), Room(budget))

    second = advance(turns, first, Room(budget))

    assert second.results >= first.results
    assert second.prose >= first.prose
    assert second == advance(turns, second, Room(budget))


def test_the_last_results_are_cut_where_the_window_cannot_hold_them():
    results = tuple(ToolResult(f"c{n}", "bash", LONG) for n in range(8))
    calls = tuple(ToolCall(f"c{n}", "bash", {"command": "ls"}) for n in range(8))
    turns: list[Turn] = [UserTurn((TextPart("go"),)), AssistantTurn(calls=calls)]
    turns.append(ResultsTurn(results))
    room = Room(2000, overhead=1000)

    squeezed = room.squeezed(turns)

    assert estimate(squeezed, 1000) <= 2000 < estimate(turns, 1000)
    assert turns[:-1] == squeezed[:-1]
    assert squeezed == Room(100_000).squeezed(squeezed)


@given(st.integers(4096, 200_000), st.integers(0, 4000), st.floats(1.0, 6.0))
def test_a_paste_takes_a_quarter_of_the_window_at_most(
    window: int, overhead: int, characters: float
):
    room = Room.of(window, None, overhead=overhead, characters_per_token=characters)
    paste = UserTurn((TextPart("x" * 1_000_000), ImagePart("", "image/png"), TextPart("y" * 9)))

    (shown,) = project([paste], Marks(), room.longest_text)

    assert isinstance(shown, UserTurn)
    sizes = [len(part.text) for part in shown.parts if isinstance(part, TextPart)]
    assert sum(sizes) <= window / 4 * characters + 100
    assert isinstance(shown.parts[1], ImagePart)


def test_pictures_count():
    assert 512 <= estimate([UserTurn((ImagePart("", "image/png"),))]) < 600


def test_the_budget_leaves_room_for_the_answer():
    assert 8192 - 2048 - 512 == prompt_budget(8192, None)
    assert 8192 - 1000 - 512 == prompt_budget(8192, 1000)
    assert 1024 == prompt_budget(4096, 8192)
