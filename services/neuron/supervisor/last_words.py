"""What a worker writes on standard error, without what its libraries quote there.

A panic of a library in Rust is written before anything of ours sees it, with its message, which may
quote a prompt or an output ("byte index 5 is no boundary of `…`"). Where it was stays.
"""

from __future__ import annotations

import collections
import re
from typing import Final

from typing_extensions import override

_MOST_LINES: Final = 40
_MOST_CHARACTERS: Final = 4_000
_PANIC: Final = re.compile(r"thread .* panicked at (?:.*, )?(?P<place>[^\s,]+:\d+:\d+)?")
# What ends a panic's message: Rust's own note, or words of another.
_NOTE: Final = "note: run with `RUST_BACKTRACE"
_OTHERS: Final = re.compile(r"Traceback |worker: |Fatal Python|Thread 0x|Current thread ")
_LONGEST_MESSAGE: Final = 100


class LastWords:
    """The tail of what was written: 40 lines, 4,000 characters at most."""

    def __init__(self) -> None:
        self._tail: collections.deque[str] = collections.deque(maxlen=_MOST_LINES)
        self._left_of_message = 0

    def take(self, line: bytes) -> str | None:
        """The line with quoted content removed; None if all of it may be content of a request."""
        text = line.decode("utf-8", "replace").rstrip()
        if (panic := _PANIC.match(text)) is not None:
            self._left_of_message = _LONGEST_MESSAGE
            text = f"panicked at {panic['place'] or 'an unknown place'}"
        elif self._left_of_message:
            if not _OTHERS.match(text):
                is_over = text.startswith(_NOTE)
                self._left_of_message = 0 if is_over else self._left_of_message - 1
                return None
            self._left_of_message = 0
        self._tail.append(text)
        return text

    @override
    def __str__(self) -> str:
        return "\n".join(self._tail)[-_MOST_CHARACTERS:]
