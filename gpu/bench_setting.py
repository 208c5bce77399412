"""Where the proof works, how large it is, and how its results are kept."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Any

EMULATED = os.environ.get("EMU") == "1"
WORK = pathlib.Path(os.environ.get("WORK", ".cache/gpu-proof")).resolve()
RESULTS = WORK / "results"
MODELS = WORK / "models"

STREAMS = (1, 4, 16) if EMULATED else (1, 4, 16, 64)
PROMPT_TOKENS = 40 if EMULATED else 256
NEW_TOKENS = 24 if EMULATED else 128
DEVICE = "cpu" if EMULATED else "cuda"
SEQUENCES = max(STREAMS)
CONTEXT_TOKENS = 1024 if EMULATED else 8192
CACHE_TOKENS = 16_384 if EMULATED else 65_536


def keep(name: str, result: Any) -> None:
    """Writes a result where `report` finds it, and shows it."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    sys.stdout.write(f"{name}: {json.dumps(result)[:2000]}\n")
    sys.stdout.flush()


def kept(name: str) -> Any:
    """A result, or None where its part has not run or has failed."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def models() -> dict[str, pathlib.Path]:
    """The models that `make_models` has made, by name."""
    return {path.name: path for path in sorted(MODELS.iterdir()) if (path / "config.json").exists()}


def emulate() -> None:
    """Emulates the device in this process, in a rehearsal."""
    if EMULATED:
        from tests.engines.exllamav2 import emulation

        emulation.install()


def prompts(count: int, tokens: int, *, vocabulary: int, seed: int = 0) -> list[list[int]]:
    """Random prompts, all different, the same for every engine."""
    import random

    chance = random.Random(seed)  # noqa: S311 - test data
    return [[chance.randrange(10, vocabulary) for _ in range(tokens)] for _ in range(count)]
