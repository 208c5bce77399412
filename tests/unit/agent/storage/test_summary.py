from hypothesis import given
from hypothesis import strategies as st

from services.agent.core.history import (
    AssistantTurn,
    ResultsTurn,
    TextPart,
    ToolCall,
    ToolResult,
    Turn,
    UserTurn,
)
from services.agent.storage.compaction import Room, estimate
from services.agent.storage.projection import Marks, Summary, project
from services.agent.storage.summary import cut_at, facts, longest_part, question


def said(text: str) -> UserTurn:
    return UserTurn((TextPart(text),))


def called(number: int, name: str, arguments: dict[str, object], *, fails: bool = False):
    call = ToolCall(f"c{number}", name, arguments)
    return [
        AssistantTurn(text=f"step {number}", calls=(call,)),
        ResultsTurn((ToolResult(call.id, name, "x" * 700, is_error=fails),)),
    ]


STEPS = [{"content": "look", "status": "completed"}, {"content": "mend", "status": "in_progress"}]
TURNS: list[Turn] = [
    said("Mend the greeting."),
    *called(1, "read_file", {"path": "a.py"}),
    *called(2, "read_file", {"path": "b.py"}),
    *called(3, "edit_file", {"path": "b.py", "old_text": "x", "new_text": "y"}),
    *called(4, "write_file", {"path": "never.py", "content": "x"}, fails=True),
    said("Be quick."),
    said("/compact the tests"),
    *called(5, "update_plan", {"steps": STEPS}),
    said("And the farewell."),
]


def test_the_agent_itself_knows_tasks_files_and_steps():
    known = facts(TURNS, len(TURNS), 4000)

    assert known == (
        "# First task\nMend the greeting.\n\n"
        "# Newest task of these\nAnd the farewell.\n\n"
        "# Tasks between them\n- Be quick.\n\n"
        "# Files changed\n- b.py\n\n"
        "# Files read\n- a.py\n\n"
        "# Steps\n[x] look\n[~] mend"
    )


@given(st.integers(0, 200), st.integers(400, 8000))
def test_facts_stay_near_their_limit(prompts: int, limit: int):
    turns: list[Turn] = [said(f"{number} {'word ' * 500}") for number in range(prompts)]
    for number in range(200):
        turns += called(number, "read_file", {"path": f"folder/{number}.py"})

    assert len(facts(turns, len(turns), limit)) <= limit + 700


@given(st.integers(1, 40), st.integers(600, 20_000), st.integers(0, 80))
def test_a_cut_leaves_no_result_without_its_call(rounds: int, budget: int, through: int):
    turns: list[Turn] = [said("go")]
    for number in range(rounds):
        turns += called(number, "bash", {"command": "ls"})
    before = Summary(through, "", "") if 0 < through < len(turns) else None
    marks = Marks().summarised(before) if before else Marks()

    cut = cut_at(turns, marks, Room(budget))

    assert marks.start <= cut < len(turns)
    assert cut == marks.start or not isinstance(turns[cut], ResultsTurn)
    kept = estimate(project(turns[cut:], Marks()))
    assert kept <= budget // 3 + len(turns) or cut >= len(turns) - 2


def test_the_question_has_the_conversation_the_older_summary_and_the_focus():
    marks = Marks().summarised(Summary(3, "We looked at a.py.", "# First task\nMend."))
    asked = question(TURNS, marks, 9, room=Room(5000), limit=9000, focus="the tests")

    assert "We looked at a.py." in asked
    assert "Mend the greeting." not in asked  # the older summary stands for it
    assert "CALL edit_file: {'path': 'b.py'" in asked
    assert "RESULT of write_file: xxx" in asked
    assert "And the farewell." not in asked
    assert asked.endswith("The user asks you to keep above all: the tests")


@given(st.integers(0, 30), st.integers(1000, 40_000))
def test_the_question_is_as_long_as_it_may_be(rounds: int, limit: int):
    turns: list[Turn] = [said("word " * 5000)]
    for number in range(rounds):
        turns += called(number, "bash", {"command": "ls " * 900})

    asked = question(turns, Marks(), len(turns), room=Room(5000), limit=limit, focus="f" * 9000)

    assert len(asked) <= limit * 9 / 8 + 1000


def test_the_model_is_asked_for_less_than_there_is_room_for():
    room = Room(5632, overhead=5000)

    asked = question(TURNS, Marks(), 3, room=room, limit=9000, focus="")

    assert f"at most {longest_part(room) // 8} words" in asked
