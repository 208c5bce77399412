"""llama.cpp for machines without a GPU: a token-level loop over the llama.h functions.

The functions are those that the pinned `xllamacpp` wheel exports. Its own `Server` class is not
used: it cannot cancel a prefill, frees and fails badly, and parses control tokens in user text.
"""

from __future__ import annotations

from services.neuron.engine_api.engine import Engine
from services.neuron.engines.llamacpp.engine import LlamaCppEngine
from services.neuron.engines.llamacpp.library.library import Library


def create_engine() -> Engine:
    """Loads the library and checks it.

    Raises:
        ImportError: `xllamacpp` is missing, or not the build that the bindings were written for.
        OSError: the library cannot be loaded (libgomp is missing).
    """
    return LlamaCppEngine(Library.load())
