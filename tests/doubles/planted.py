"""What must be in no log, and a log to look for it."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
from collections.abc import Generator
from typing import Any, Final, Literal, NoReturn

from services.backplane.logs import LogSettings, configure

ROOT: Final = pathlib.Path(__file__).resolve().parents[2]
KEY: Final = "sk-planted-key"
PROMPT: Final = "planted-prompt"
OUTPUT: Final = "planted-output"


BODY: Final = f'{{"key": "{KEY}", "prompt": "{PROMPT}", "output": "{OUTPUT}"}}'

# For a process of its own whose command line is not the test's: what Python runs at its start.
# The module may be any, the function is one of a class in it.
_SITE: Final = """
import sys
if {program!r} in " ".join(sys.orig_argv):
    from {module} import {owner}
    from tests.doubles.planted import crash
    {owner}.{name} = crash
"""


def crash(*arguments: Any, **named: Any) -> NoReturn:
    """Fails as a bug does: what it was given is among its variables, a body is its message."""
    seen = [arguments, named]
    try:
        raise ValueError(BODY)
    except ValueError as error:
        error.add_note(BODY)
        raise RuntimeError(BODY, len(seen)) from error


def crashing_path(folder: pathlib.Path, *, program: str, module: str, owner: str, name: str) -> str:
    """A PYTHONPATH with which a program has `crash` for a method of its own.

    Args:
        folder: an empty one.
        program: part of its command line.
        module: where the class is.
        owner: the class.
        name: the method.
    """
    made = _SITE.format(program=program, module=module, owner=owner, name=name)
    (folder / "sitecustomize.py").write_text(made)
    return f"{folder}{os.pathsep}{ROOT}"


@contextlib.contextmanager
def logged(
    form: Literal["json", "console"], service: str, *, level: Literal["debug", "info"] = "debug"
) -> Generator[io.StringIO]:
    """All that this process logs while the context is open."""
    written = io.StringIO()
    configure(LogSettings(level=level, format=form), service=service, stream=written)
    yield written


def assert_crash_tells_nothing(written: str) -> None:
    """The crash is in the log, and nothing that was planted is."""
    assert "RuntimeError" in written
    for secret in (KEY, PROMPT, OUTPUT):
        assert secret not in written
