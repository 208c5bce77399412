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
from services.agent.storage.compaction import Marks, advance, estimate, project, prompt_budget

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

    marks = advance(turns, Marks(), budget=estimate(turns))

    assert Marks() == marks
    assert turns == project(turns, marks)


def test_results_go_first_and_oldest_first():
    turns = conversation(8)

    marks = advance(turns, Marks(), budget=estimate(turns) - 1)

    assert 0 < marks.results < len(turns) - 4
    assert 0 == marks.prose
    assert estimate(project(turns, marks)) <= 0.75 * estimate(turns)


def test_prose_goes_when_results_are_not_enough():
    turns = conversation(4)

    marks = advance(turns, Marks(), budget=100)

    assert (11, 8) == (marks.results, marks.prose)


def test_the_last_turns_go_only_where_nothing_else_helps():
    turns = conversation(4)
    without = estimate(project(turns, Marks(8, 8)))

    assert advance(turns, Marks(), budget=without) == Marks(8, 8)
    assert advance(turns, Marks(), budget=without - 1).results > 8


def test_an_endpoint_that_counts_more_tokens_gets_less():
    turns = conversation(8)
    budget = estimate(turns) + 1

    assert advance(turns, Marks(), budget=budget) == Marks()
    assert advance(turns, Marks(), budget=budget, characters_per_token=2.0).results > 0


@given(st.integers(1, 8), st.integers(1, 40_000), st.integers(0, 30_000))
def test_user_turns_ids_and_the_last_turn_are_never_touched(rounds, budget, overhead):
    turns = conversation(rounds)

    marks = advance(turns, Marks(), budget=budget, overhead_characters=overhead)
    projected = project(turns, marks)

    assert len(turns) == len(projected)
    assert turns[-1] == projected[-1]
    assert [turn for turn in turns[-4:] if turn in projected] == turns[-4:] or (
        marks.prose == max(len(turns) - 4, 0)  # all else was left out before
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
    first = advance(turns[:-3], Marks(), budget=budget)

    second = advance(turns, first, budget=budget)

    assert second.results >= first.results
    assert second.prose >= first.prose
    assert second == advance(turns, second, budget=budget)


def test_pictures_count():
    assert 512 <= estimate([UserTurn((ImagePart("", "image/png"),))]) < 600


def test_the_budget_leaves_room_for_the_answer():
    assert 8192 - 2048 - 512 == prompt_budget(8192, None)
    assert 8192 - 1000 - 512 == prompt_budget(8192, 1000)
    assert 1024 == prompt_budget(4096, 8192)
