"""A model as a hub has it: a folder of safetensors with files that no engine reads."""

from __future__ import annotations

import json
import random

REPO = "acme/tiny"
WEIGHTS = random.Random(7).randbytes(3_000_000)
HUGE = random.Random(8).randbytes(24_000_000)
FOLDER = {
    "config.json": json.dumps({"architectures": ["LlamaForCausalLM"]}).encode(),
    "tokenizer.json": b"{}" * 600,
    "README.md": b"read me",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"old" * 1000,
    "onnx/model.onnx": b"other" * 1000,
}
