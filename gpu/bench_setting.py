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
WARM_TOKENS = 8
"""New tokens of a run that is not timed, before each that is."""
DEVICE = "cpu" if EMULATED else "cuda"
SEQUENCES = max(STREAMS)
CONTEXT_TOKENS = 1024 if EMULATED else 8192
CACHE_TOKENS = 16_384 if EMULATED else 65_536

CLEAR = 0.1
"""Log odds between the best two tokens from which a choice is no tie. 16-bit logits between 16 and
32 are 0.016 apart, and how they round depends on the kernels and on the shape of the batch."""


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


def keep_of(name: str, model: str, result: Any) -> None:
    """Writes one model's share of a result."""
    keep(f"{name}-{model}", result)


def forget_of(name: str, model: str) -> None:
    """Drops what was kept of a model: an old result must not stand for one that fails now."""
    (RESULTS / f"{name}-{model}.json").unlink(missing_ok=True)


def kept_by_model(name: str) -> dict[str, Any] | None:
    """What every model's share of a result says, of this run and of earlier ones; None for none."""
    files = sorted(RESULTS.glob(f"{name}-*.json"))
    found = {file.stem.removeprefix(f"{name}-"): json.loads(file.read_bytes()) for file in files}
    return found or None


def models() -> dict[str, pathlib.Path]:
    """The models that `make_models` has made and PROOF_MODELS names, by name."""
    return {
        path.name: path
        for path in sorted(MODELS.iterdir())
        if (path / "config.json").exists() and is_wanted(path.name)
    }


def is_wanted(model: str) -> bool:
    """PROOF_MODELS names it, or nothing."""
    wanted = os.environ.get("PROOF_MODELS", "").split()
    return not wanted or model in wanted


def emulate() -> None:
    """Emulates the device in this process, in a rehearsal.

    Logits are off by up to 0.01, another way for every shape of a batch, as a GPU rounds them:
    every rule of the proof has to bear it.
    """
    if EMULATED:
        from tests.engines.exllamav2 import emulation

        os.environ.setdefault(emulation.NOISE, "0.01")
        emulation.install()


def prompts(count: int, tokens: int, *, vocabulary: int, seed: int = 0) -> list[list[int]]:
    """Random prompts, all different, the same for every engine."""
    import random

    chance = random.Random(seed)  # noqa: S311 - test data
    return [[chance.randrange(10, vocabulary) for _ in range(tokens)] for _ in range(count)]
