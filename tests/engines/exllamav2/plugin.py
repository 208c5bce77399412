"""`pytest -p tests.engines.exllamav2.plugin` emulates the device for tests outside this folder too."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
    from tests.engines.exllamav2 import emulation

    emulation.install()
