"""The last things that llama.cpp said, so that failures can be told in its own words."""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import Final

from services.neuron.engines.llamacpp.library.structs import LOG_CALLBACK

_WARNING: Final = 3
_ERROR: Final = 4
_MAX_LINES: Final = 64


class LogTail:
    """Keeps warnings and errors by the thread that caused them; errors also go to stderr.

    Bound: 64 lines in all.
    """

    def __init__(self) -> None:
        self._lines: deque[tuple[int, int, str]] = deque(maxlen=_MAX_LINES)
        # Lines come from every thread that is in the library, also while one reads its own.
        self._lock = threading.Lock()
        # Referenced for as long as the library may call it.
        self.callback = LOG_CALLBACK(self._on_line)

    def clear(self) -> None:
        """Forgets what the calling thread caused so far."""
        mine = threading.get_ident()
        with self._lock:
            kept = [line for line in self._lines if line[0] != mine]
            self._lines = deque(kept, maxlen=_MAX_LINES)

    def last_words(self) -> str:
        """The errors that the calling thread caused, else its warnings; may be empty."""
        with self._lock:
            mine = [line for line in self._lines if line[0] == threading.get_ident()]
        errors = [text for _, level, text in mine if level == _ERROR]
        # The last error only names the outermost function; the first one says what was wrong.
        return _plain((errors or [text for _, _, text in mine])[:1])

    def _on_line(self, level: int, text: bytes, _: object) -> None:
        line = text.decode("utf-8", "replace")
        if level in {_WARNING, _ERROR}:
            with self._lock:
                self._lines.append((threading.get_ident(), level, line))
        if level == _ERROR:
            sys.stderr.write(line)


def _plain(lines: list[str]) -> str:
    """Without the name of the C function in front: `load_model: no such file` → `no such file`."""
    for line in lines:
        function, colon, rest = line.strip().partition(": ")
        return rest if colon and function.replace("_", "").isalnum() else line.strip()
    return ""
