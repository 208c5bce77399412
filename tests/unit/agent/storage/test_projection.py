from services.agent.core.history import (
    AssistantTurn,
    ResultsTurn,
    TextPart,
    Thought,
    ToolCall,
    ToolResult,
    Turn,
    UserTurn,
)
from services.agent.storage.projection import Marks, Summary, project

TURNS: list[Turn] = [
    UserTurn((TextPart("first"),)),
    AssistantTurn(text="one"),
    UserTurn((TextPart("second"),)),
    AssistantTurn(text="two"),
]
SUMMARY = Summary(through=2, said="We did one.", facts="# First task\nfirst")


def test_a_summary_stands_for_the_turns_before_it():
    summary, *rest = project(TURNS, Marks().summarised(SUMMARY))

    assert isinstance(summary, UserTurn)
    assert TURNS[2:] == rest
    (part,) = summary.parts
    assert isinstance(part, TextPart)
    assert "# First task\nfirst" in part.text
    assert part.text.endswith("We did one.")


def test_a_summary_of_what_was_taken_back_is_forgotten():
    marks = Marks().summarised(SUMMARY)

    assert marks == marks.rewound(4)
    assert marks == marks.rewound(2)
    assert Marks(1, 1) == marks.rewound(1)


def test_marks_of_an_older_summary_only_move_forward():
    newer = Summary(3, "More.", "")

    assert Marks(3, 3, newer) == Marks().summarised(SUMMARY).summarised(newer)
    assert Marks(9, 5, newer) == Marks(9, 5, SUMMARY).summarised(newer)


def test_what_is_left_out_takes_no_room_in_any_form():
    long = "x" * 5000
    answer = AssistantTurn(
        text=long,
        thoughts=(Thought(long),),
        calls=(
            ToolCall("c1", "write_file", {"path": "a", "content": long}),
            ToolCall("c2", "", None, raw=long, note="not JSON"),
            ToolCall("c3", "mcp__a__b", {"rows": [{"cell": "y"}] * 1000}),
        ),
    )
    turns: list[Turn] = [answer, ResultsTurn((ToolResult("c1", "write_file", long),))]

    shown = project(turns, Marks(2, 2))

    assert len(repr(shown)) < 1500
    assert isinstance(shown[0], AssistantTurn)
    assert {"path", "content"} == set(shown[0].calls[0].arguments or ())
