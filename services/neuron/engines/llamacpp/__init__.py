"""llama.cpp: a token-level loop over the llama.h functions, on the CPU and on GPUs.

The functions are those that the pinned `xllamacpp` wheel exports, or an official build of
llama.cpp. The wheel's own `Server` class is not used: it cannot cancel a prefill, frees and fails
badly, and parses control tokens in user text.
"""

from __future__ import annotations

import os

from services.neuron.devices.ggml import LIBRARY_VARIABLE
from services.neuron.engine_api.engine import Engine
from services.neuron.engines.llamacpp.engine import LlamaCppEngine
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.locate import locate


def create_engine() -> Engine:
    """Loads the library that `CORTEX_LLAMACPP_LIBRARY` names, or one that is found; checks it.

    Raises:
        ImportError: there is none, or none of the builds that the bindings were written for.
        OSError: it cannot be loaded (libgomp is missing).
    """
    return LlamaCppEngine(Library(locate(os.environ.get(LIBRARY_VARIABLE, ""))))
