"""The functions of llama.h and ggml-backend.h that we call, through ctypes."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from services.backplane.process.cpus import SPIN_COUNT
from services.neuron.engines.llamacpp.library.builds import build_of, known
from services.neuron.engines.llamacpp.library.locate import Found
from services.neuron.engines.llamacpp.library.log_tail import LogTail
from services.neuron.engines.llamacpp.library.self_check import check_layouts
from services.neuron.engines.llamacpp.library.structs import (
    LOG_CALLBACK,
    Batch,
    DeviceProps,
    LogitBias,
    boolean,
    f32,
    i32,
    pointer,
    size,
    u32,
)

# llama.cpp has one callback for its log, and calls it as long as the process lives: one that went
# with its `Library` would leave it a pointer into freed memory.
_LOG: Final = LogTail()
_text = ctypes.c_char_p
_Signature = tuple[Any, tuple[Any, ...]]

# Calls that take long release the interpreter lock, so that reader and writer threads go on.
_LONG: Final[Mapping[str, _Signature]] = MappingProxyType(
    {
        "backend_init": (None, ()),
        "model_free": (None, (pointer,)),
        "free": (None, (pointer,)),
        "decode": (i32, (pointer, Batch)),
        "state_seq_get_data_ext": (size, (pointer, pointer, size, i32, u32)),
        "state_seq_set_data_ext": (size, (pointer, _text, size, i32, u32)),
        "tokenize": (i32, (pointer, _text, i32, ctypes.POINTER(i32), i32, boolean, boolean)),
    }
)

# The others keep it: giving it up and getting it back costs more than the call itself.
_SHORT: Final[Mapping[str, _Signature]] = MappingProxyType(
    {
        "print_system_info": (_text, ()),
        "log_set": (None, (LOG_CALLBACK, pointer)),
        "model_get_vocab": (pointer, (pointer,)),
        "model_n_ctx_train": (i32, (pointer,)),
        "model_n_swa": (i32, (pointer,)),
        "model_n_embd_out": (i32, (pointer,)),
        "model_desc": (i32, (pointer, _text, size)),
        "model_is_recurrent": (boolean, (pointer,)),
        "model_is_hybrid": (boolean, (pointer,)),
        "model_chat_template": (_text, (pointer, _text)),
        "model_meta_val_str": (i32, (pointer, _text, _text, size)),
        "vocab_n_tokens": (i32, (pointer,)),
        "vocab_type": (i32, (pointer,)),
        "vocab_get_text": (_text, (pointer, i32)),
        "vocab_get_attr": (i32, (pointer, i32)),
        "vocab_is_eog": (boolean, (pointer, i32)),
        "vocab_bos": (i32, (pointer,)),
        "vocab_eos": (i32, (pointer,)),
        "vocab_sep": (i32, (pointer,)),
        "vocab_get_add_bos": (boolean, (pointer,)),
        "vocab_get_add_eos": (boolean, (pointer,)),
        "token_to_piece": (i32, (pointer, i32, _text, i32, i32, boolean)),
        "set_n_threads": (None, (pointer, i32, i32)),
        "set_abort_callback": (None, (pointer, pointer, pointer)),
        "get_memory": (pointer, (pointer,)),
        "memory_seq_rm": (boolean, (pointer, i32, i32, i32)),
        "memory_seq_pos_min": (i32, (pointer, i32)),
        "memory_seq_pos_max": (i32, (pointer, i32)),
        "memory_seq_cp": (None, (pointer, i32, i32, i32, i32)),
        "memory_clear": (None, (pointer, boolean)),
        "state_seq_get_size_ext": (size, (pointer, i32, u32)),
        "get_logits_ith": (pointer, (pointer, i32)),
        "get_embeddings_seq": (pointer, (pointer, i32)),
        "sampler_chain_init": (pointer, (boolean,)),
        "sampler_chain_add": (None, (pointer, pointer)),
        "sampler_chain_n": (i32, (pointer,)),
        "sampler_chain_remove": (pointer, (pointer, i32)),
        "sampler_free": (None, (pointer,)),
        "sampler_accept": (None, (pointer, i32)),
        "sampler_sample": (i32, (pointer, pointer, i32)),
        "sampler_init_greedy": (pointer, ()),
        "sampler_init_dist": (pointer, (u32,)),
        "sampler_init_top_k": (pointer, (i32,)),
        "sampler_init_top_p": (pointer, (f32, size)),
        "sampler_init_min_p": (pointer, (f32, size)),
        "sampler_init_typical": (pointer, (f32, size)),
        "sampler_init_temp": (pointer, (f32,)),
        "sampler_init_penalties": (pointer, (i32, i32, f32, f32, f32)),
        "sampler_init_logit_bias": (pointer, (i32, i32, ctypes.POINTER(LogitBias))),
    }
)

# ggml's own, with its prefix `ggml_`. Asking a driver may take long.
_GGML: Final[Mapping[str, _Signature]] = MappingProxyType(
    {
        "backend_load_all_from_path": (None, (_text,)),
        "backend_dev_count": (size, ()),
        "backend_dev_get": (pointer, (size,)),
        "backend_dev_name": (_text, (pointer,)),
        "backend_dev_type": (i32, (pointer,)),
        "backend_dev_get_props": (None, (pointer, ctypes.POINTER(DeviceProps))),
        "backend_dev_backend_reg": (pointer, (pointer,)),
        "backend_reg_name": (_text, (pointer,)),
        "backend_dev_by_type": (pointer, (i32,)),
        "backend_dev_buffer_type": (pointer, (pointer,)),
    }
)


class Library:
    """llama.cpp in this process; attributes are its functions without `llama_` or `ggml_`.

    Attributes:
        found: where it lies, and why this one.
        version: of llama.cpp and of ggml, as it tells them.
        log: the last lines that llama.cpp wrote; all libraries of a process share it.
    """

    def __init__(self, found: Found) -> None:
        """Loads and checks it, and the backends in its own folder.

        Raises:
            ImportError: it is no build that can be used; the message names both versions.
            OSError: it cannot be loaded.
        """
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
        # A failed assertion would start a debugger on this process to print a backtrace.
        os.environ.setdefault("GGML_NO_BACKTRACE", "1")
        # It names one more backend to load, from anywhere.
        os.environ.pop("GGML_BACKEND_PATH", None)
        self.found = found
        try:
            self._load(found.path)
        except (ImportError, AttributeError) as error:
            raise ImportError(
                f"{found.path.name} ({found.origin}) cannot be used: {error}"
            ) from error

    def new_device_props(self) -> Any:
        """An empty `struct ggml_backend_dev_props`."""
        return DeviceProps()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        # Only for the type checkers: every bound function is an instance attribute.
        raise AttributeError(name)

    def _load(self, path: Path) -> None:
        # One handle that releases the interpreter lock in every call and one that never does.
        handle = ctypes.CDLL(str(path))
        self.version = _version(handle)
        build = build_of(self.version)
        self._bind(handle, _LONG)
        self._bind(
            handle,
            {
                "model_load_from_file": (pointer, (_text, build.model_params)),
                "init_from_model": (pointer, (pointer, build.context_params)),
            },
        )
        self._bind(handle, _GGML, prefix="ggml_")
        short = ctypes.PyDLL(str(path))
        self._bind(short, _SHORT)
        self._bind(
            short,
            {
                "model_default_params": (build.model_params, ()),
                "context_default_params": (build.context_params, ()),
            },
        )
        self.log = _LOG
        self.log_set(self.log.callback, None)
        try:
            check_layouts(self.model_default_params(), self.context_default_params())
        except ImportError as error:
            raise ImportError(
                f"It calls itself llama.cpp {self.version} and is not laid out as {build.version}:"
                f" {error}."
            ) from error
        self.backend_init()
        if any(path.parent.glob("libggml-*")):  # else its backends are in it
            self.backend_load_all_from_path(os.fsencode(path.parent))

    def _bind(
        self, handle: ctypes.CDLL, signatures: Mapping[str, _Signature], prefix: str = "llama_"
    ) -> None:
        for name, (result, arguments) in signatures.items():
            function = getattr(handle, f"{prefix}{name}")
            function.restype, function.argtypes = result, list(arguments)
            setattr(self, name, function)


def _version(handle: ctypes.CDLL) -> str:
    try:
        function = handle.llama_version
    except AttributeError as error:
        raise ImportError(
            f"It does not tell its version, so it is older than what can be used ({known()})."
        ) from error
    function.restype, function.argtypes = _text, []
    told: bytes = function()
    return told.decode("utf-8", "replace")
