"""The instructions that a project and its user keep in AGENTS.md files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILE_NAME = "AGENTS.md"
_MOST_CHARACTERS = 32_000


@dataclass(frozen=True, slots=True)
class RulesFile:
    """One file, cut at 32,000 characters."""

    path: Path
    text: str


def read_rules(cwd: Path, user_directory: Path) -> tuple[RulesFile, ...]:
    """Reads the user's file, then the repository's from its root down to the directory.

    Blocks. A file that cannot be read counts as absent. Outside a repository only the
    working directory's own file counts.
    """
    return tuple(_readable(user_directory, *_project_directories(cwd)))


def _project_directories(cwd: Path) -> list[Path]:
    above = [cwd, *cwd.parents]
    root = next((each for each in above if (each / ".git").exists()), cwd)
    return above[: above.index(root) + 1][::-1]


def _readable(*directories: Path) -> Iterator[RulesFile]:
    for directory in directories:
        path = directory / FILE_NAME
        try:
            text = path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
        if text:
            yield RulesFile(path, text[:_MOST_CHARACTERS])
