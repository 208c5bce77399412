"""What the agent's own writes replaced, so that a prompt's changes can be taken back.

One JSON file for each prompt that wrote, of the last fifty. What commands changed is not in it. A
file that is no longer as the agent left it is somebody else's by now, and is left alone.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog

log = structlog.get_logger(__name__)

_MOST_BYTES = 10 * 1024 * 1024
_MOST_PROMPTS = 50


class Replaced(msgspec.Struct):
    """One file: its bytes before the prompt, None if it was not there; a hash of those after."""

    before: bytes | None
    after: str = ""


@dataclass(slots=True)
class Undone:
    """The files that are as before, and those that were left alone."""

    restored: list[str] = field(default_factory=list[str])
    left: list[str] = field(default_factory=list[str])


class FileCheckpoints:
    """Those of one session; blocks. Without a directory nothing is kept.

    A prompt is named by the index of its turn in the history.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def before(self, prompt: int, target: Path) -> None:
        """Keeps a file as it is, before a prompt's first write; failing is logged.

        Kept anew where somebody else has written it since the prompt's last write.
        """
        files = self._read(prompt)
        if self._directory is None:
            return
        try:
            now = _content(target)
            known = files.get(str(target))
            if known is not None and known.after in {"", _hash(now)}:
                return
            files[str(target)] = Replaced(now)
            self._write(prompt, files)
        except OSError as error:
            log.warning("no checkpoint", path=str(target), reason=str(error))

    def after(self, prompt: int, target: Path) -> None:
        """Notes what the agent made of it."""
        files = self._read(prompt)
        if str(target) in files:
            with contextlib.suppress(OSError):
                files[str(target)].after = _hash(_content(target))
                self._write(prompt, files)

    def undo(self, prompt: int) -> Undone:
        """Puts back the files of one prompt and forgets it."""
        undone = Undone()
        for name, replaced in self._read(prompt).items():
            is_done = _restored(Path(name), replaced)
            (undone.restored if is_done else undone.left).append(name)
        if self._directory is not None:
            self._path(prompt).unlink(missing_ok=True)
        return undone

    def forget(self) -> None:
        """Removes all of them."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _path(self, prompt: int) -> Path:
        assert self._directory is not None
        return self._directory / f"{prompt:08}.json"

    def _read(self, prompt: int) -> dict[str, Replaced]:
        if self._directory is None:
            return {}
        try:
            return msgspec.json.decode(self._path(prompt).read_bytes(), type=dict[str, Replaced])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            log.warning("checkpoint not read", path=str(self._path(prompt)), reason=str(error))
            return {}

    def _write(self, prompt: int, files: dict[str, Replaced]) -> None:
        path = self._path(prompt)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_suffix(".tmp")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
            f.write(msgspec.json.encode(files))
        temporary.replace(path)
        for old in sorted(path.parent.glob("*.json"))[:-_MOST_PROMPTS]:
            old.unlink(missing_ok=True)


def _content(target: Path) -> bytes | None:
    """Returns a file's bytes, None if there is none; raises OSError where it cannot be kept."""
    try:
        if Path(os.path.realpath(target.parent)) != target.parent:
            raise OSError("it lies behind a link")
        status = target.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            raise OSError("not a regular file, or too large")
        return target.read_bytes()
    except FileNotFoundError:
        return None


def _hash(content: bytes | None) -> str:
    return "" if content is None else hashlib.sha256(content).hexdigest()


def _restored(target: Path, replaced: Replaced) -> bool:
    """Puts a file back unless it is another than the agent left, or nothing had been written."""
    try:
        now = _content(target)
        if now == replaced.before:
            return True
        if not replaced.after or _hash(now) != replaced.after:
            return False
        if replaced.before is None:
            target.unlink()
        else:
            _replace(target, replaced.before)
    except OSError as error:
        log.warning("not restored", path=str(target), reason=str(error))
        return False
    return True


def _replace(target: Path, content: bytes) -> None:
    """Replaces a file and keeps its permissions; follows no link that lies there already."""
    mode = stat.S_IMODE(target.lstat().st_mode)
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            f.write(content)
        temporary.chmod(mode)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
