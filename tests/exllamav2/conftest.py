import importlib.util
import os

# Without the engine's packages there is nothing to test here; scripts/test-exllamav2 brings them.
_WANTED = ("torch", "exllamav2", "tokenizers", "safetensors", "triton")
if any(importlib.util.find_spec(name) is None for name in _WANTED):
    collect_ignore_glob = ["*"]
else:
    import torch

    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"
        from tests.exllamav2 import emulation

        emulation.install()

    # Modules of the engine import the library at their top; attention must be in place before.
    from services.neuron.engines.exllamav2.library import open_library

    open_library()
