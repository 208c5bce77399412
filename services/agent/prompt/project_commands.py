"""Slash commands and skills that a project keeps as Markdown, for this agent or for others.

`.agents/commands/review.md` is `/review`, a file in a folder there `/folder:review`, and a skill's
`SKILL.md` has the name of its folder; `.claude/` counts likewise, after `.agents/`. Front matter
gives a description; nothing in a file is run.
"""

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import acp.schema

from services.agent.core.text import one_line
from services.agent.prompt.rules import read_bounded

_DIRECTORIES = (".agents", ".claude")
_MOST = 100
_MOST_LOOKED_AT = 10_000  # files and directories below one
_FRONT = re.compile(r"---\r?\n(.*?)\r?\n---\r?\n?", re.DOTALL)
_FIELD = re.compile(r"^(description|argument-hint):(.*)$", re.MULTILINE)
_PLACE = re.compile(r"\$(ARGUMENTS|[1-9])")
_INVOKED = re.compile(r"\s*/([A-Za-z0-9][\w:.-]*)(?:\s+(.*))?\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ProjectCommand:
    """One command or skill; `text` is what the model is asked."""

    description: str
    hint: str
    text: str

    def with_arguments(self, arguments: str) -> str:
        """Returns the text, `$ARGUMENTS` and `$1` to `$9` replaced, or the arguments behind it."""
        try:
            words = shlex.split(arguments)
        except ValueError:
            words = arguments.split()
        given = {str(number): word for number, word in enumerate(words, 1)}
        if not _PLACE.search(self.text):
            return f"{self.text}\n\n{arguments}".strip()
        return _PLACE.sub(lambda m: {**given, "ARGUMENTS": arguments}.get(m[1], ""), self.text)


def project_commands(cwd: Path) -> dict[str, ProjectCommand]:
    """Reads a project's commands, a hundred at most; blocks. What cannot be read is left out."""
    found: dict[str, ProjectCommand] = {}
    for directory in (cwd / name for name in _DIRECTORIES):
        commands, skills = directory / "commands", directory / "skills"
        named = [(_name(path, commands), path) for path in _files(commands, cwd)]
        named += [
            (path.parent.name, path)
            for path in _files(skills, cwd)
            if path.name == "SKILL.md" and path.parent.parent == skills
        ]
        for name, path in named:
            if len(found) == _MOST:
                break
            if name not in found and _INVOKED.fullmatch(f"/{name}"):
                command = _read(path, cwd)
                if command is not None:
                    found[name] = command
    return found


def _files(directory: Path, cwd: Path) -> list[Path]:
    """Returns the Markdown files below a directory, none where it lies outside of the project."""
    if not Path(os.path.realpath(directory)).is_relative_to(os.path.realpath(cwd)):
        return []
    # Not `rglob`, which raises where a folder goes away between being found and being read.
    found = (
        Path(inside, name)
        for inside, folders, names in os.walk(directory)
        for name in (*folders, *names)
    )
    return sorted(path for path in islice(found, _MOST_LOOKED_AT) if path.suffix == ".md")


def invoked(text: str, commands: Mapping[str, ProjectCommand]) -> str | None:
    """Returns what a prompt that is one of the commands asks the model, None for any other."""
    match = _INVOKED.fullmatch(text)
    command = commands.get(match[1]) if match else None
    return None if match is None or command is None else command.with_arguments(match[2] or "")


def as_available(commands: Mapping[str, ProjectCommand]) -> list[acp.schema.AvailableCommand]:
    """Returns the commands as an editor offers them."""
    return [
        acp.schema.AvailableCommand(
            name=name,
            description=command.description,
            input=acp.schema.AvailableCommandInput(
                root=acp.schema.UnstructuredCommandInput(hint=command.hint or "arguments")
            ),
        )
        for name, command in commands.items()
    ]


def _name(path: Path, directory: Path) -> str:
    return ":".join(path.relative_to(directory).with_suffix("").parts)


def _read(path: Path, cwd: Path) -> ProjectCommand | None:
    try:
        text = read_bounded(path, within=Path(os.path.realpath(cwd))).removeprefix("\ufeff")
    except OSError:
        return None
    front = _FRONT.match(text)
    found: list[tuple[str, str]] = _FIELD.findall(front[1]) if front else []
    fields = {key: value.strip().strip("\"'") for key, value in found}
    body = text[front.end() :].strip() if front else text
    description = fields.get("description") or body.partition("\n")[0].lstrip("# ")
    hint = fields.get("argument-hint", "")
    return ProjectCommand(one_line(description, 200), one_line(hint, 80), body) if body else None
