"""The worker itself, whose llama.cpp aborts at every pass that reads a `~`, and at some files.

As it does by `GGML_ABORT` where a backend runs out of memory in the middle of a graph, or where an
assertion fails: its words go to standard error, then SIGABRT. The files are called `fatal`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

from services.neuron.engine_api.model import LoadPlan
from services.neuron.engines.llamacpp.batch.batch import TokenBatch
from services.neuron.engines.llamacpp.batch.context import Context
from services.neuron.engines.llamacpp.library.locate import locate
from services.neuron.engines.llamacpp.model import loading
from services.neuron.worker.__main__ import main
from tests.doubles.vocabulary import id_of_byte

_FATAL = id_of_byte("~")


def abort(words: bytes) -> None:
    """Ends this process as a failed assertion of the library does."""
    library = ctypes.CDLL(str(locate("").path))
    library.ggml_abort(b"ggml-double.cpp", 7, words)


def abort_at_files() -> None:
    """Every load."""
    genuine = loading.load

    def load_or_abort(library: Any, plan: LoadPlan, assemble: Any) -> Any:
        if "fatal" in plan.path:
            abort(b"this cannot be loaded")
        return genuine(library, plan, assemble)

    loading.load = load_or_abort


def abort_at_tokens() -> None:
    """Every forward pass."""
    decode = Context.decode

    def decode_or_abort(self: Context, batch: TokenBatch) -> bool:
        tokens: Any = (ctypes.c_int32 * len(batch)).from_address(batch.struct.token)
        if _FATAL in list(tokens):
            abort(b"out of device memory")
        return decode(self, batch)

    Context.decode = decode_or_abort  # type: ignore[method-assign]


if __name__ == "__main__":
    abort_at_tokens()
    abort_at_files()
    code = main()
    sys.stderr.flush()
    os._exit(code)
