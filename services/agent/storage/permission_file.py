"""The file of a project's lasting permission rules.

It lies in the user's configuration, never in the project: no repository allows itself anything.
"""

import os
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

_MOST_BYTES = 65_536


class PermissionFile:
    """One project's rules; read anew each time, so that an edit counts at once. Blocks."""

    def __init__(self, path: Path, cwd: str) -> None:
        self.path = path
        self._cwd = cwd

    def rules(self) -> list[str]:
        """Returns the rules; none when there is no file or it cannot be read."""
        try:
            with self.path.open("rb") as file:
                text = file.read(_MOST_BYTES).decode("utf-8-sig", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            log.warning("permissions not read", path=str(self.path), reason=str(error))
            return []
        lines = (line.strip() for line in text.split("\n"))
        return [line for line in lines if line and not line.startswith("#")]

    def add(self, rule: str) -> None:
        """Appends a rule; a failure is logged, and the call of the moment goes on."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            with os.fdopen(os.open(self.path, flags, 0o600), "a", encoding="utf-8") as file:
                if file.tell() == 0:
                    file.write(f"# What the agent may do in {self._cwd} without asking.\n")
                file.write(f"{rule}\n")
        except OSError as error:
            log.warning("permission not kept", path=str(self.path), reason=str(error))
