"""Where plan mode may write: one directory per project, and the check that nothing escapes it."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

_FNV_OFFSET = 0x811C9DC5
_FNV_PRIME = 0x01000193


def fnv1a_32(text: str) -> int:
    """Returns the 32-bit FNV-1a hash of the UTF-8 bytes of `text`.

    Source: draft-eastlake-fnv, section 2 (FNV-1a); offset basis and prime for 32 bits.
    """
    value = _FNV_OFFSET
    for byte in text.encode("utf-8", "surrogatepass"):
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
    return value


def project_id(cwd: str) -> str:
    """Returns `<basename>-<8 hex>`, the name that a working directory has below `plans/`."""
    basename = re.sub(r"[^A-Za-z0-9_-]", "_", Path(cwd).name)
    return f"{basename or 'unknown'}-{fnv1a_32(cwd):08x}"


def data_home(environment: Mapping[str, str]) -> Path | None:
    """Returns the agent's data directory, or None where neither XDG nor HOME names one."""
    configured = environment.get("XDG_DATA_HOME", "")
    if Path(configured).is_absolute():
        return Path(configured) / "cortex-acp"
    home = environment.get("HOME", "")
    if Path(home).is_absolute():
        return Path(home) / ".local" / "share" / "cortex-acp"
    return None


def resolve(path: str | Path) -> Path:
    """Returns the path with links and `..` resolved; parts that do not exist stay as written."""
    return Path(os.path.realpath(path))


class PlanDirectory:
    """The plan directory of one project.

    Blocks on the file system for a few `lstat` calls; nothing here writes except `create`.
    """

    def __init__(self, data: Path | None, cwd: str) -> None:
        self.path = None if data is None else data / "plans" / project_id(cwd)

    def resolved(self) -> Path | None:
        """Returns the real directory, or None when it cannot be used.

        The last component must be a directory of its own or absent: were it a link, the
        whole of plan mode could be pointed anywhere by whoever planted it.
        """
        if self.path is None:
            return None
        expected = resolve(self.path.parent) / self.path.name
        return expected if resolve(self.path) == expected else None

    def create(self) -> Path | None:
        """Makes the directory where it may be used; returns it resolved, or None."""
        directory = self.resolved()
        if directory is None:
            return None
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            return None
        return self.resolved()
