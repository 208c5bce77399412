"""Single keys of a terminal while something is shown on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Callable, Generator
from typing import Final

END_OF_INPUT: Final = "\x04"


@contextlib.contextmanager
def single_keys(pressed: Callable[[str], None]) -> Generator[None]:
    """Tells each key as it is pressed, while the context is open; Ctrl-C stays what it is.

    The terminal is as it was before when the context ends, however it ends. Where standard input is
    no terminal, nothing is told.

    Args:
        pressed: called on the event loop; with Ctrl-D once the terminal has gone.
    """
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            signs = os.read(descriptor, 64)
        except OSError:
            signs = b""
        if not signs:
            loop.remove_reader(descriptor)
        for sign in signs.decode(errors="ignore") or END_OF_INPUT:
            pressed(sign)

    try:
        tty.setcbreak(descriptor)
        loop.add_reader(descriptor, read)
        yield
    finally:
        loop.remove_reader(descriptor)
        with contextlib.suppress(termios.error):  # it has gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
