"""Headers at which llama.cpp ends its process are refused before it reads them."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import pytest
from gguf import GGUFWriter

from services.neuron.weights import gguf
from services.neuron.weights.gguf_reader import BadGgufError
from tests.doubles import random_hybrid

# A hybrid of which attention has four heads of 16 dimensions.
LOAD = """
import sys
from services.neuron.engine_api.model import LoadPlan
from services.neuron.engine_api.task import Prompt, SamplingParams, Segment, StopParams, Task
from services.neuron.engines.llamacpp.engine import LlamaCppEngine
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.locate import locate

steps = LlamaCppEngine(Library(locate(""))).load(LoadPlan("i", "llamacpp", sys.argv[1]))
try:
    while True:
        next(steps)
except StopIteration as done:
    model = done.value
prompt = Prompt((Segment("Hello"),))
task = Task(1, "i", prompt, SamplingParams(temperature=0), StopParams(max_tokens=1))
model.submit(task, model.tokenize(prompt))
for _ in range(9):
    model.step()
"""


def header(path: pathlib.Path, architecture: str, **facts: Any) -> pathlib.Path:
    given = {"block_count": 8, "embedding_length": 64, "attention__head_count": 4, **facts}
    writer = GGUFWriter(path, architecture)
    for name, value in given.items():
        add = writer.add_array if isinstance(value, list) else writer.add_uint32
        add(f"{architecture}.{name.replace('__', '.')}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_the_library_aborts_at_what_is_refused_and_not_at_what_is_taken(tmp_path):
    for turned, words in ((8, ""), (16, ""), (32, "32 dimensions that turn")):
        path = random_hybrid.build_hybrid(tmp_path / f"{turned}.gguf", turned=turned)
        done = subprocess.run(
            [sys.executable, "-c", LOAD, path], capture_output=True, check=False, timeout=60
        )
        assert (done.returncode == 0) == (not words), done.stderr
        if words:
            with pytest.raises(BadGgufError, match=words):
                gguf.read(path)
        else:
            gguf.read(path)


@pytest.mark.parametrize(
    ("architecture", "facts", "told"),
    [
        ("qwen2", {"rope__dimension_count": 16}, ""),
        ("qwen2", {"rope__dimension_count": 8}, "8 dimensions that turn cannot be true of heads"),
        ("qwen3", {"rope__dimension_count": 16, "attention__key_length": 32}, "keys of 32 and"),
        (
            "qwen3",
            {
                "rope__dimension_count": 16,
                "attention__key_length": 32,
                "attention__value_length": 32,
            },
            "16 dimensions that turn cannot be true of heads of 32",
        ),
        ("phi2", {"rope__dimension_count": 8}, ""),
        ("phi2", {"rope__dimension_count": 18}, "18 dimensions that turn"),
        # keys are compressed, and a part of each is turned
        ("deepseek2", {"rope__dimension_count": 64, "attention__key_length": 576,
                       "attention__value_length": 512}, ""),
        ("gemma4", {"rope__dimension_count": 32, "attention__key_length": 32,
                    "attention__value_length": 32, "rope__dimension_count_swa": 16,
                    "attention__key_length_swa": 16}, ""),
        ("gemma4", {"rope__dimension_count_swa": 15}, "an odd number"),
        ("lfm2", {"attention__head_count": [0, 4, 0]}, ""),
        ("qwen35", {"full_attention_interval": 4}, ""),
        ("qwen35", {"full_attention_interval": 0}, "attention in every 0th layer"),
        ("qwen35", {"rope__dimension_sections": [2, 3, 3, 0]}, ""),
        ("qwen35", {"rope__dimension_sections": [0, 0, 0, 0]}, "in sections of none"),
    ],
)  # fmt: skip
def test_by_architecture(tmp_path, architecture, facts, told):
    path = header(tmp_path / "m.gguf", architecture, **facts)

    if not told:
        assert gguf.read(path).architecture == architecture
        return
    with pytest.raises(BadGgufError, match=told):
        gguf.read(path)
