"""ExLlamaV2 on NVIDIA GPUs: continuous batching over a paged cache, driven by our own loop.

The library is at the end of its life, so what it leaves open is ours: which architectures it may
load (`configuration`), a check of the weights and an estimate of the memory before anything is
loaded (`weights`), the attention kernel (`attention`), the build of its extension (`build`), the
sampling it gets wrong (`jobs`), and a loop that survives its exceptions (`loop`).

Nothing here imports torch before a model is loaded: `probe` asks in a process of its own.
"""

from __future__ import annotations

import os

from services.neuron.engine_api.engine import Engine
from services.neuron.engines.exllamav2.engine import ExLlamaV2Engine
from services.neuron.engines.exllamav2.parallel.group import DEVICES_VARIABLE


def create_engine() -> Engine:
    """Imports the library and checks what it needs.

    Raises:
        EngineUnavailableError: it cannot run here; the message says what to do.
    """
    devices = os.environ.get(DEVICES_VARIABLE, "")
    return ExLlamaV2Engine.open([one for one in devices.split(",") if one])
