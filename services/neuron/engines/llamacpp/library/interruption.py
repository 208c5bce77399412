"""A flag that another thread raises to cut a forward pass short."""

from __future__ import annotations

import ctypes
from typing import Any, Final

from services.neuron.engines.llamacpp.library.library import Library

_RAISED: Final = b"x"
_LOWERED: Final = b"\0"


class Interruption:
    """Tells a context whether to go on, without running Python in its innermost loop.

    llama.cpp asks `bool abort_callback(void *data)` before every node of its graph. The C library's
    `strlen` answers: the data is a string that is empty while the pass may go on.
    """

    def __init__(self, library: Library, context: int) -> None:
        self._flag = ctypes.create_string_buffer(2)
        strlen: Any = ctypes.CDLL(None).strlen
        callback = ctypes.cast(strlen, ctypes.c_void_p)
        library.set_abort_callback(context, callback, ctypes.addressof(self._flag))

    def set(self) -> None:
        """Makes the running forward pass end at its next node."""
        self._flag[0] = _RAISED

    def clear(self) -> None:
        """Lets the next pass run."""
        self._flag[0] = _LOWERED
