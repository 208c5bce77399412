"""The last things that llama.cpp said, so that failures can be told in its own words.

Also what it said of its buffers: it tells nowhere else what a load takes on which device.
"""

from __future__ import annotations

import re
import sys
import threading
from collections import deque
from typing import Final

from services.neuron.engines.llamacpp.library.structs import LOG_CALLBACK

_WARNING: Final = 3
_ERROR: Final = 4
_MAX_LINES: Final = 64
_MAX_BUFFERS: Final = 256
# `load_tensors:      Vulkan0 model buffer size =    58.28 MiB`
_BUFFER: Final = re.compile(r":\s+(\S+\s+\w+) buffer size =\s+([\d.]+) MiB")


class LogTail:
    """Keeps warnings and errors by the thread that caused them; errors also go to stderr.

    Bound: 64 lines in all, and the sizes of 256 buffers.
    """

    def __init__(self) -> None:
        self._buffers: deque[tuple[int, str, int]] = deque(maxlen=_MAX_BUFFERS)
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
            others = [one for one in self._buffers if one[0] != mine]
            self._buffers = deque(others, maxlen=_MAX_BUFFERS)

    def buffers(self) -> dict[str, int]:
        """Bytes of the buffers that the calling thread made, by name, such as `Vulkan0 model`."""
        mine = threading.get_ident()
        made = dict[str, int]()
        with self._lock:
            for thread, name, count in self._buffers:
                if thread == mine:
                    made[name] = made.get(name, 0) + count
        return made

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
        found = _BUFFER.search(line)
        if found is not None:
            name, mebibytes = " ".join(found[1].split()), float(found[2])
            with self._lock:
                self._buffers.append((threading.get_ident(), name, int(mebibytes * (1 << 20))))
        if level == _ERROR:
            sys.stderr.write(line)


def _plain(lines: list[str]) -> str:
    """Without the name of the C function in front: `load_model: no such file` → `no such file`."""
    for line in lines:
        function, colon, rest = line.strip().partition(": ")
        return rest if colon and function.replace("_", "").isalnum() else line.strip()
    return ""
