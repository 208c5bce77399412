"""The instructions that a project and its user keep in AGENTS.md files.

A repository is somebody else's until its user trusts it: a link that leads out of it, a pipe or a
device in the place of a rules file is passed over, and no more is read than is used.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.agent.core.text import cut_middle

log = structlog.get_logger(__name__)

FILE_NAME = "AGENTS.md"
_MOST_BYTES = 32_768


@dataclass(frozen=True, slots=True)
class RulesFile:
    """One file, cut at 32 KiB."""

    path: Path
    text: str


def read_rules(cwd: Path, user_directory: Path) -> tuple[RulesFile, ...]:
    """Reads the user's file, then the repository's from its root down to the directory.

    Blocks. A file that cannot be read counts as absent. Outside a repository only the
    working directory's own file counts.
    """
    project = _project_directories(cwd)
    users = _readable([user_directory], within=None)
    return (*users, *_readable(project, within=Path(os.path.realpath(project[0]))))


def fitted(rules: tuple[RulesFile, ...], limit: int) -> tuple[RulesFile, ...]:
    """Cuts the files until they have `limit` characters together, the closest file last."""
    kept: list[RulesFile] = []
    for number, each in enumerate(reversed(rules)):
        share = limit // (len(rules) - number) if number else limit
        text = cut_middle(each.text, max(share, 0))
        limit -= len(text)
        kept.append(RulesFile(each.path, text))
    return tuple(reversed(kept))


def _project_directories(cwd: Path) -> list[Path]:
    above = [cwd, *cwd.parents]
    root = next((each for each in above if (each / ".git").exists()), cwd)
    return above[: above.index(root) + 1][::-1]


def _readable(directories: list[Path], *, within: Path | None) -> Iterator[RulesFile]:
    """Yields the files of directories that may be read; `within` bounds where links may lead."""
    for directory in directories:
        path = directory / FILE_NAME
        try:
            text = read_bounded(path, within=within)
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("rules file skipped", path=str(path), reason=str(error))
            continue
        if text:
            yield RulesFile(path, text)


def read_bounded(path: Path, *, within: Path | None) -> str:
    """Reads the first 32 KiB of a regular file below a directory; raises OSError for others."""
    # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("not a regular file")
        real = Path(os.path.realpath(path))
        if within is not None and not real.is_relative_to(within):
            raise OSError(f"it leads out of {within}")
        return file.read(_MOST_BYTES).decode(errors="replace").strip()
