"""Paths as a session means them."""

from collections.abc import Mapping, Sequence
from pathlib import Path


class Workspace:
    """A session's working directory, its further directories, and how paths are read.

    Args:
        cwd: absolute.
        additional: absolute directories that belong to the project too.
        environment: where `HOME` is looked up.
    """

    def __init__(
        self, cwd: str, additional: Sequence[str], *, environment: Mapping[str, str]
    ) -> None:
        self.cwd = Path(cwd)
        self.roots = (self.cwd, *(Path(each) for each in additional))
        self._home = environment.get("HOME", "")

    def absolute(self, path: str) -> Path:
        """Expands a leading `~` or `$HOME`, nothing else, and joins with the directory."""
        for prefix in ("~", "$HOME"):
            if self._home and (path == prefix or path.startswith(prefix + "/")):
                return Path(self._home + path.removeprefix(prefix))
        return self.cwd / path

    def shown(self, path: str) -> str:
        """Returns a path relative to the working directory where it lies below it."""
        full = self.absolute(path)
        return str(full.relative_to(self.cwd)) if full.is_relative_to(self.cwd) else str(full)
