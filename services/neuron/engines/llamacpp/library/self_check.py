"""Compares what llama.cpp returns through our struct layouts with what a build must return."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

_MODEL_DEFAULTS: Final[Mapping[str, object]] = MappingProxyType({
    "devices": None, "tensor_buft_overrides": None, "n_gpu_layers": -1, "split_mode": 1,
    "load_mode": -1, "main_gpu": 0, "tensor_split": None, "progress_callback": None,
    "kv_overrides": None, "vocab_only": False, "check_tensors": False, "use_extra_bufts": True,
    "no_host": False, "no_alloc": False,
})  # fmt: skip
_CONTEXT_DEFAULTS: Final[Mapping[str, object]] = MappingProxyType({
    "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_threads": 4,
    "n_threads_batch": 4, "pooling_type": -1, "flash_attn_type": -1, "rope_freq_base": 0.0,
    "yarn_ext_factor": -1.0, "yarn_attn_factor": -1.0, "yarn_orig_ctx": 0, "cb_eval": None,
    "type_k": 1, "type_v": 1, "abort_callback": None, "abort_callback_data": None,
    "embeddings": False, "offload_kqv": True, "no_perf": True, "op_offload": True,
    "swa_full": True, "kv_unified": False, "samplers": None, "n_samplers": 0, "ctx_other": None,
})  # fmt: skip


def check_layouts(model: Any, context: Any) -> None:
    """Checks the default parameters, read through a build's layouts.

    Raises:
        ImportError: a field reads differently, so the layouts are not those of this library.
    """
    for params, defaults in ((model, _MODEL_DEFAULTS), (context, _CONTEXT_DEFAULTS)):
        for name, expected in defaults.items():
            found = getattr(params, name)
            if found != expected:
                raise ImportError(
                    f"{type(params).__name__}.{name} reads {found!r}, not {expected!r}"
                )
