"""What a summary of the oldest turns is made from, and what the agent puts into it itself. Pure.

The model is asked for what only it can tell: what was found out and decided, and what comes next.
The tasks in the user's words, the files and the list of steps are known without it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from services.agent.core.history import AssistantTurn, ResultsTurn, Turn, UserTurn, user_text
from services.agent.core.text import cut_middle, one_line
from services.agent.storage.commands import command_in
from services.agent.storage.compaction import Room, estimate
from services.agent.storage.projection import Marks, projected

SYSTEM: Final = """\
You write the summary by which a coding agent goes on with its work after the conversation so far \
has been removed. You call no tools and do no other work."""
_QUESTION: Final = """\
Summarise the conversation above for the agent that goes on with it. In at most {words} words, as \
short notes: what the user wants, what was found out (names, paths, numbers, error messages), what \
was decided and why, what was done, what failed, and what is to be done next. Write nothing else."""
_FOCUS: Final = "The user asks you to keep above all: {focus}"

ANSWER_TOKENS: Final = 2048
"""Most tokens of the model's answer, its reasoning included, unless the settings say another."""
_TAIL = 3  # a third of the room stays as it is
_SHARE = 6  # a sixth for the model's words, and one for what the agent knows
_MOST_TOKENS = 2048  # of each of the two
_CHARACTERS_OF_A_WORD = 8  # a little more than in English, so that it asks for less than it takes
_PIECES = (4000, 2000, 1000, 500, 250, 120)  # characters, until a transcript fits
_WRITES = frozenset({"write_file", "edit_file"})
_READS = frozenset({"read_file"})
_PLAN = "update_plan"
_BOXES = {"completed": "[x]", "in_progress": "[~]"}


def cut_at(turns: Sequence[Turn], marks: Marks, room: Room) -> int:
    """Returns the index from which on turns stay as they are: the last ones, a third of the room.

    The last one stays in any case, and results with the answer that called for them.
    """
    left = room.tokens // _TAIL
    index = best = len(turns)
    while index > marks.start:
        index -= 1
        turn = projected(turns[index], index, marks, room.longest_text)
        left -= estimate([turn], characters_per_token=room.characters_per_token)
        if left < 0 and best < len(turns):
            break
        if not isinstance(turn, ResultsTurn):
            best = index
    return best if best < len(turns) else marks.start


def longest_part(room: Room) -> int:
    """Returns the most characters of the model's words, and as many of what the agent knows."""
    return int(min(room.tokens // _SHARE, _MOST_TOKENS) * room.characters_per_token)


def question(
    turns: Sequence[Turn], marks: Marks, through: int, *, room: Room, limit: int, focus: str
) -> str:
    """Returns the prompt that asks for a summary of the turns before an index.

    Args:
        turns: the whole history.
        marks: whose summary stands for the oldest turns so far.
        through: the index of the first turn that is not summarised.
        room: in which the summary has to lie.
        limit: most characters of the conversation that are shown.
        focus: what the user wants kept above all; may be empty.
    """
    before = marks.summary
    told = f"[Summary of what came before]\n{before.facts}\n{before.said}\n\n" if before else ""
    shown = told + _transcript(turns[marks.start : through], max(limit - len(told), limit // 4))
    asked = _QUESTION.format(words=longest_part(room) // _CHARACTERS_OF_A_WORD)
    more = f"\n{_FOCUS.format(focus=cut_middle(focus, limit // 8))}" if focus else ""
    return f"<conversation>\n{cut_middle(shown, limit)}\n</conversation>\n\n{asked}{more}"


def _transcript(turns: Sequence[Turn], limit: int) -> str:
    """Writes turns as text, their long pieces cut the more the longer they are together."""
    text = ""
    for longest in _PIECES:
        text = "\n\n".join(piece for turn in turns for piece in _pieces(turn, longest))
        if len(text) <= limit:
            break
    return text


def _pieces(turn: Turn, longest: int) -> Iterator[str]:
    if isinstance(turn, UserTurn):
        yield f"USER: {cut_middle(user_text(turn), longest)}"
    elif isinstance(turn, AssistantTurn):
        if turn.text:
            yield f"AGENT: {cut_middle(turn.text, longest)}"
        for call in turn.calls:
            yield f"CALL {call.name}: {cut_middle(str(call.arguments or call.raw), longest)}"
    else:
        for result in turn.results:
            yield f"RESULT of {result.name}: {cut_middle(result.text, longest)}"


def facts(turns: Sequence[Turn], through: int, limit: int) -> str:
    """Returns what the agent knows of the turns before an index, in about `limit` characters."""
    prompts = [text for turn in turns[:through] if (text := _prompt(turn))]
    sections = [("# First task", cut_middle(prompts[0], limit // 4))] if prompts else []
    if len(prompts) > 1:
        sections.append(("# Newest task of these", cut_middle(prompts[-1], limit // 4)))
    if len(prompts) > 2:  # noqa: PLR2004 - the first and the newest are told already
        between = [f"- {one_line(text, 100)}" for text in prompts[1:-1]]
        sections.append(("# Tasks between them", _last(between, limit // 8)))
    done = _done(turns[:through])
    written, read = (list(_paths(done, names)) for names in (_WRITES, _READS))
    if written:
        sections.append(("# Files changed", _last([f"- {path}" for path in written], limit // 8)))
    if unchanged := [f"- {path}" for path in read if path not in written]:
        sections.append(("# Files read", _last(unchanged, limit // 8)))
    if steps := _steps(done):
        sections.append(("# Steps", _last(steps, limit // 8)))
    return "\n\n".join(f"{title}\n{text}" for title, text in sections)


def _prompt(turn: Turn) -> str:
    if not isinstance(turn, UserTurn) or turn.is_refused:
        return ""
    text = user_text(turn).strip()
    return "" if command_in(text) else text


def _done(turns: Sequence[Turn]) -> list[tuple[str, dict[str, Any]]]:
    """Returns the names and arguments of the calls that did not fail."""
    results = [each for turn in turns if isinstance(turn, ResultsTurn) for each in turn.results]
    failed = {each.call_id for each in results if each.is_error}
    answers = [turn for turn in turns if isinstance(turn, AssistantTurn)]
    calls = [call for turn in answers for call in turn.calls if call.id not in failed]
    return [(call.name, call.arguments) for call in calls if call.arguments is not None]


def _paths(done: Sequence[tuple[str, dict[str, Any]]], names: frozenset[str]) -> dict[str, None]:
    """Returns the paths of calls, each once, by its last call."""
    paths: dict[str, None] = {}
    for name, arguments in done:
        path = one_line(str(arguments.get("path", "")), 200)
        if name in names and path:
            paths.pop(path, None)
            paths[path] = None
    return paths


def _steps(done: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    plans = [arguments.get("steps") for name, arguments in done if name == _PLAN]
    steps = plans[-1] if plans and isinstance(plans[-1], list) else []
    return [
        f"{_BOXES.get(str(step.get('status')), '[ ]')} {one_line(str(step.get('content')), 200)}"
        for step in steps
        if isinstance(step, dict)
    ]


def _last(lines: Sequence[str], limit: int) -> str:
    """Returns the last lines that fit, and how many were left out before them."""
    kept: list[str] = []
    for line in reversed(lines):
        limit -= len(line) + 1
        if limit < 0 and kept:
            break
        kept.append(line)
    left = len(lines) - len(kept)
    return "\n".join([*([f"[{left} more]"] if left else []), *reversed(kept)])
