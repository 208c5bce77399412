"""What must be in no log, and a log to look for it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Generator
from typing import Any, Final, Literal, NoReturn

from services.backplane.logs import LogSettings, configure

KEY: Final = "sk-planted-key"
PROMPT: Final = "planted-prompt"
OUTPUT: Final = "planted-output"


def crash(*arguments: Any, **named: Any) -> NoReturn:
    """Fails as a bug does, with all that it was given among its variables."""
    seen = [arguments, named]
    raise RuntimeError(f"a bug, with {len(seen)} variables")


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
