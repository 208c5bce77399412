"""How weights are packed and how many there are, in the words that people use for them. Pure.

Source of the GGUF names: llama.cpp `include/llama.h`, `enum llama_ftype`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

_GGUF: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
        11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
        17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
        23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
        29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0",
        38: "MXFP4_MOE", 39: "NVFP4",
    }
)  # fmt: skip
_DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3"}
)
_UNITS: Final = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def of_gguf(file_type: object) -> str:
    """What a GGUF file's `general.file_type` means; empty where it is not known."""
    return _GGUF.get(file_type, "") if isinstance(file_type, int) else ""


def of_config(config: Mapping[str, Any]) -> str:
    """What a `config.json` says: bits where the model is quantised, else the numbers' type."""
    quantised = config.get("quantization_config")
    if isinstance(quantised, Mapping):
        bits = quantised.get("bits") or quantised.get("w_bit")
        return f"{bits:g}bit" if isinstance(bits, int | float) else ""
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "")
    return _DTYPES.get(dtype, dtype.upper())


def size_of(parameters: int) -> str:
    """A count as models are named by it, three digits at most: `135M`, `1.71B`; empty for 0."""
    for unit, letter in _UNITS:
        if parameters >= unit:
            return f"{parameters / unit:.3g}{letter}"
    return str(parameters) if parameters else ""
