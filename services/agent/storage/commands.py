"""The slash commands that editors offer. Pure."""

import re
from collections.abc import Sequence

import acp.schema

from services.agent.storage.compaction import estimate
from services.agent.storage.projection import project
from services.agent.storage.store import SessionRecord

INIT = "init"
STATUS = "status"
COMPACT = "compact"
UNDO = "undo"
REWIND = "rewind"

_DESCRIPTIONS = {
    INIT: "Write or improve the project's AGENTS.md",
    STATUS: "Show the session's model, mode and size",
    COMPACT: "Summarise the conversation, keeping what you name, such as /compact the failing test",
    UNDO: "Take back the last prompt: its part of the history, and its writes",
    REWIND: "Take back as many prompts as you say, such as /rewind 3",
}

INIT_PROMPT = """\
Look at this project and write an AGENTS.md at its root, or improve the one that is there: what \
the project is, how it is laid out, the exact commands to build, test and lint it, and the \
conventions that its code follows. Keep it under a page and state only what you have checked."""


def available_commands(
    more: Sequence[acp.schema.AvailableCommand] = (),
) -> acp.schema.AvailableCommandsUpdate:
    """Returns the update that tells an editor about our commands and a project's own."""
    own = [
        acp.schema.AvailableCommand(name=name, description=description)
        for name, description in _DESCRIPTIONS.items()
    ]
    return acp.schema.AvailableCommandsUpdate(
        session_update="available_commands_update",
        available_commands=[*own, *(each for each in more if each.name not in _DESCRIPTIONS)],
    )


def command_in(text: str) -> str:
    """Returns the command that a prompt consists of, empty when it is none of ours."""
    match = re.fullmatch(r"/(\w+)(\s.*)?", text.strip(), re.DOTALL)
    is_known = match is not None and match[1] in _DESCRIPTIONS
    return match[1] if match and is_known and (match[1] == COMPACT or not match[2]) else ""


def focus_of(text: str) -> str:
    """Returns what follows /compact."""
    return text.strip().removeprefix(f"/{COMPACT}").strip()


def undone_prompts(text: str) -> int:
    """Returns how many prompts a text asks to take back, 0 when it does not."""
    match = re.fullmatch(r"\s*/(undo|rewind)(?:\s+([1-9]\d{0,3}))?\s*", text)
    return int(match[2] or 1) if match and (match[1] == REWIND or not match[2]) else 0


def undone(prompts: int, restored: Sequence[str], left: Sequence[str]) -> str:
    """Returns the text that /undo and /rewind show."""
    if not prompts:
        return "There is nothing to take back."
    lines = [f"{prompts} prompt{'s' if prompts > 1 else ''} taken back."]
    if restored:
        lines.append("As before: " + ", ".join(f"`{name}`" for name in dict.fromkeys(restored)))
    if left:
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(left))
        lines.append(f"Left alone, as others have changed them since: {names}")
    lines.append("What commands did stays as it is.")
    return "\n\n".join(lines)


def status(record: SessionRecord, selector: str, window: int | None) -> str:
    """Returns the text that /status shows."""
    tokens = estimate(project(record.history, record.marks))
    size = f"about {tokens} tokens" + (f" of {window}" if window else "")
    lines = [
        f"Session `{record.session_id}`",
        f"Model `{selector or 'none'}`, mode `{record.mode}`",
        f"{len(record.history)} turns, {size}",
        f"Directory `{record.cwd}`",
    ]
    return "\n\n".join(lines)
