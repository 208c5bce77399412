"""Reading and writing files through the editor where it offers that, locally where not."""

import asyncio
import contextlib
import os
import re
import stat
import uuid
from pathlib import Path

import structlog

from services.agent.core.editor import EditorError
from services.agent.tools.tool import ToolContext, ToolError

log = structlog.get_logger(__name__)

_MOST_BYTES = 10 * 1024 * 1024
_BYTE_ORDER_MARK = "\ufeff"

# What stands in a model's view for what it is not shown: of results, its own calls, and files.
_LEFT_OUT = re.compile(
    r"\[left out to save room: \d+ "
    r"|\[\.\.\. \d+ (?:bytes|characters) left out \.\.\.\]"
    r"|\[cut here; go on with line=\d+ of \d+\]"
    r"|\[the line was cut here\]"
)


def refuse_left_out(before: str | None, after: str) -> None:
    """Raises ToolError where a text would be replaced by the words that say it was left out."""
    known = set(_LEFT_OUT.findall(before or ""))
    if new := set(_LEFT_OUT.findall(after)) - known:
        raise ToolError(
            f"the text holds {min(new)!r}, which stands for what you were not shown; "
            "read that again, and change it by edit_file"
        )


async def read_text(path: Path, context: ToolContext, *, permitted: Path | None = None) -> str:
    """Returns a file's text, unsaved changes in the editor included.

    The editor refuses files outside its workspace; those are read locally, at the resolved path
    that was permitted where one is given.

    Raises:
        ToolError: neither way works; both reasons are given.
    """
    refusal = ""
    if context.editor.offered.reads:
        try:
            return await context.editor.read(path)
        except EditorError as error:
            refusal = f" ({error})"
            log.warning("read locally instead", path=str(path), exc_info=error)
    try:
        return await asyncio.to_thread(_read_locally, permitted or path)
    except ToolError as error:
        raise ToolError(f"{error}{refusal}") from error


async def read_if_any(path: Path, context: ToolContext) -> str | None:
    """Returns a file's text, None when there is none.

    Raises:
        ToolError: there is one that cannot be read as text, and so not be shown before it goes.
    """
    try:
        return await read_text(path, context)
    except ToolError:
        if await asyncio.to_thread(os.path.exists, path):
            raise
        return None


def in_form_of(before: str | None, text: str) -> str:
    """Returns a text with the byte order mark and the CRLF line ends of what it replaces.

    A model sees neither, and writes neither; a file of mixed line ends has none to keep.
    """
    if not before:
        return text
    if "\r" not in text and "\r\n" in before and "\n" not in before.replace("\r\n", ""):
        text = text.replace("\n", "\r\n")
    if before.startswith(_BYTE_ORDER_MARK) and not text.startswith(_BYTE_ORDER_MARK):
        text = _BYTE_ORDER_MARK + text
    return text


async def write_text(path: Path, content: str, context: ToolContext) -> None:
    """Writes a whole file, and the directories above it.

    Goes through the editor for files of the project; others, such as plans, are none of its
    business and are written here, as is everything where the editor does not offer to write.

    Raises:
        ToolError: the mode forbids it by now, or it cannot be written.
    """
    try:
        data = content.encode()
    except UnicodeEncodeError as error:
        raise ToolError(f"the content is not valid Unicode: {error}") from error
    target = context.permit(path)
    assert target is not None
    await asyncio.to_thread(context.keep, target, False)
    if context.permit(path) != target:  # nothing may lie between the permission and the write
        raise ToolError(f"{path} leads elsewhere by now; try again")
    await _written(path, target, data, content, context)
    await asyncio.to_thread(context.keep, target, True)


async def _written(
    path: Path, target: Path, data: bytes, content: str, context: ToolContext
) -> None:
    if context.editor.offered.writes and _is_in_project(target, context):
        try:
            await context.editor.write(path, content)
        except EditorError as error:
            raise ToolError(f"{path} was not written: {error}") from error
        return
    try:
        await asyncio.to_thread(replace_file, target, data)
    except OSError as error:
        raise ToolError(f"{path} was not written: {error.strerror or error}") from error


def replace_file(target: Path, data: bytes) -> None:
    """Replaces a resolved file whole and keeps its permissions.

    A link that was planted in the meantime, as the file or above it, is not followed out.

    Raises:
        OSError: it cannot be written, or the path is no longer the resolved one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if Path(os.path.realpath(target.parent)) != target.parent:
        raise OSError(f"{target.parent} has become a link")
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb"
        ) as file:
            file.write(data)
        with contextlib.suppress(FileNotFoundError):
            before = target.lstat()
            if stat.S_ISDIR(before.st_mode):
                raise IsADirectoryError(0, "it is a directory", str(target))
            if stat.S_ISREG(before.st_mode):
                if not before.st_mode & 0o222:
                    raise PermissionError(0, "it is read-only", str(target))
                temporary.chmod(stat.S_IMODE(before.st_mode))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _is_in_project(target: Path, context: ToolContext) -> bool:
    roots = (Path(os.path.realpath(root)) for root in context.workspace.roots)
    return any(target.is_relative_to(root) for root in roots)


def _read_locally(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            what = "a directory; use list_dir" if path.is_dir() else "not a regular file"
            raise ToolError(f"{path} is {what}")
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ToolError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ToolError(f"{path!s:.100} is no path: {error}") from error
    if len(data) > _MOST_BYTES:
        raise ToolError(f"{path} is larger than {_MOST_BYTES} bytes; use grep or bash")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ToolError(f"{path} is not UTF-8 text") from error
