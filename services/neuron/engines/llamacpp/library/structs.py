"""The structs of llama.h and ggml-backend.h, as the builds of `builds.py` lay them out.

A wrong layout is memory corruption: `self_check.py` compares defaults before anything else runs.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

i32, u32, f32 = ctypes.c_int32, ctypes.c_uint32, ctypes.c_float
boolean, pointer, size = ctypes.c_bool, ctypes.c_void_p, ctypes.c_size_t


class ModelParams(ctypes.Structure):
    """`struct llama_model_params`."""

    _fields_ = [
        ("devices", pointer),
        ("tensor_buft_overrides", pointer),
        ("n_gpu_layers", i32),
        ("split_mode", i32),
        ("load_mode", i32),
        ("lazy_mode", i32),
        ("main_gpu", i32),
        ("tensor_split", pointer),
        ("progress_callback", pointer),
        ("progress_callback_user_data", pointer),
        ("kv_overrides", pointer),
        ("vocab_only", boolean),
        ("check_tensors", boolean),
        ("use_extra_bufts", boolean),
        ("no_host", boolean),
        ("no_alloc", boolean),
        ("load_mtp", boolean),
    ]


_CONTEXT_HEAD: Final[list[tuple[str, Any]]] = [
    ("n_ctx", u32),
    ("n_batch", u32),
    ("n_ubatch", u32),
    ("n_seq_max", u32),
    ("n_rs_seq", u32),
    ("n_outputs_max", u32),
    ("n_outputs_max_per_seq", u32),
    ("n_threads", i32),
    ("n_threads_batch", i32),
    ("ctx_type", i32),
    ("rope_scaling_type", i32),
    ("pooling_type", i32),
    ("attention_type", i32),
    ("flash_attn_type", i32),
    ("rope_freq_base", f32),
    ("rope_freq_scale", f32),
    ("yarn_ext_factor", f32),
    ("yarn_attn_factor", f32),
    ("yarn_beta_fast", f32),
    ("yarn_beta_slow", f32),
    ("yarn_orig_ctx", u32),
    ("defrag_thold", f32),
    ("cb_eval", pointer),
    ("cb_eval_user_data", pointer),
    ("type_k", i32),
    ("type_v", i32),
]
_CONTEXT_TAIL: Final[list[tuple[str, Any]]] = [
    ("abort_callback", pointer),
    ("abort_callback_data", pointer),
    ("embeddings", boolean),
    ("offload_kqv", boolean),
    ("no_perf", boolean),
    ("op_offload", boolean),
    ("swa_full", boolean),
    ("kv_unified", boolean),
    ("samplers", pointer),
    ("n_samplers", size),
    ("ctx_other", pointer),
]


class ContextParams(ctypes.Structure):
    """`struct llama_context_params` since 0.6."""

    _fields_ = [*_CONTEXT_HEAD, ("moe_cache_size", size), *_CONTEXT_TAIL]


class ContextParams05(ctypes.Structure):
    """`struct llama_context_params` of 0.5."""

    _fields_ = [*_CONTEXT_HEAD, *_CONTEXT_TAIL]


class DeviceProps(ctypes.Structure):
    """`struct ggml_backend_dev_props`."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", size),
        ("memory_total", size),
        ("type", i32),
        ("device_id", ctypes.c_char_p),
        ("capabilities", ctypes.c_uint8 * 32),  # four flags, and room for more
    ]


class TensorOverride(ctypes.Structure):
    """`struct llama_model_tensor_buft_override`."""

    _fields_ = [("pattern", ctypes.c_char_p), ("buffer_type", pointer)]


class Batch(ctypes.Structure):
    """`struct llama_batch`."""

    _fields_ = [
        ("n_tokens", i32),
        ("token", pointer),
        ("embd", pointer),
        ("pos", pointer),
        ("n_seq_id", pointer),
        ("seq_id", pointer),
        ("logits", pointer),
    ]


class LogitBias(ctypes.Structure):
    """`struct llama_logit_bias`."""

    _fields_ = [("token", i32), ("bias", f32)]


LOG_CALLBACK: Final = ctypes.CFUNCTYPE(None, i32, ctypes.c_char_p, pointer)
PROGRESS_CALLBACK: Final = ctypes.CFUNCTYPE(boolean, f32, pointer)
