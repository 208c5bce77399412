"""The worker itself, whose llama.cpp aborts the process at every pass that reads a `~`.

As it does by `GGML_ABORT` where a backend runs out of memory in the middle of a graph: its words go
to standard error, then SIGABRT.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

from services.neuron.engines.llamacpp.batch.batch import TokenBatch
from services.neuron.engines.llamacpp.batch.context import Context
from services.neuron.engines.llamacpp.library.locate import locate
from services.neuron.worker.__main__ import main
from tests.doubles.vocabulary import id_of_byte

_FATAL = id_of_byte("~")


def abort_at_it() -> None:
    """Every forward pass."""
    decode = Context.decode

    def decode_or_abort(self: Context, batch: TokenBatch) -> bool:
        tokens: Any = (ctypes.c_int32 * len(batch)).from_address(batch.struct.token)
        if _FATAL in list(tokens):
            library = ctypes.CDLL(str(locate("").path))
            library.ggml_abort(b"ggml-double.cpp", 7, b"out of device memory")
        return decode(self, batch)

    Context.decode = decode_or_abort  # type: ignore[method-assign]


if __name__ == "__main__":
    abort_at_it()
    code = main()
    sys.stderr.flush()
    os._exit(code)
