"""As `emulated/`, with logits that are off by the shape of the batch, as on a GPU.

A worker inherits no variable of ours, but PYTHONPATH.
"""

import os
import pathlib
import runpy

os.environ.setdefault("CORTEX_EMULATED_NOISE", "0.01")
runpy.run_path(str(pathlib.Path(__file__).parents[1] / "emulated/sitecustomize.py"))
