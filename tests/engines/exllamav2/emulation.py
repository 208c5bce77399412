"""Lets the real ExLlamaV2 run on a CPU: its compiled extension and CUDA, as far as it asks.

Emulated are the functions that unquantised models, the dynamic generator and the sampler call; any
other raises. Everything else (model, cache, tokenizer, generator, jobs, sampler) is the library's
own Python. One device of 8 GiB is pretended.

`install` is called by the tests' conftest; `sitecustomize` in `emulated/` calls it in processes
that tests start.
"""

from __future__ import annotations

import gc
import importlib.abc
import importlib.machinery
import os
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from tests.engines.exllamav2 import emulated_cache, emulated_functions, emulated_matrices

EXTENSION = "exllamav2_ext"
NOISE = "CORTEX_EMULATED_NOISE"
"""A variable: by how much logits are off, another way for every shape of a batch. On a GPU kernels
and the order of their sums depend on the shape; here nothing would."""
TOTAL_BYTES = 8 << 30
UUID = "00000000-0000-0000-0000-00000000c0de"

REPLACED: dict[str, Any] = {}
"""The library's own functions for places of tensors, which one device does without."""


def install() -> None:
    """Makes `import exllamav2` work without a GPU. Call before it; twice does no harm."""
    if EXTENSION in sys.modules:
        return
    # The interpreter of Triton is far too slow for whole models; its kernel has tests of its own.
    os.environ.setdefault("CORTEX_EXLLAMAV2_ATTENTION", "torch")
    import torch

    torch.set_num_threads(1)
    _pretend_device(torch)
    sys.modules[EXTENSION] = _extension()
    sys.meta_path.insert(0, _PatchAfterImport())


def _pretend_device(torch: Any) -> None:
    class Stream:
        cuda_stream = 0

        def __init__(self, *_: Any) -> None: ...

    properties = types.SimpleNamespace(
        major=9, minor=0, multi_processor_count=132, uuid=UUID, total_memory=TOTAL_BYTES
    )

    def tensor_bytes(_: Any = None) -> int:
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for tensor in gc.get_objects()
            if type(tensor) in {torch.Tensor, torch.nn.Parameter} and tensor.device.type == "cpu"
        }
        return sum(storages.values())

    cuda = torch.cuda
    cuda.Stream = Stream
    cuda.synchronize = cuda.set_stream = cuda.empty_cache = lambda *_: None
    cuda.device_count = lambda: 1
    cuda.get_device_properties = lambda _: properties
    cuda.get_device_capability = lambda *_: (9, 0)
    cuda.mem_get_info = lambda *_: (TOTAL_BYTES, TOTAL_BYTES)
    cuda.memory_reserved = tensor_bytes


class _PatchAfterImport(importlib.abc.MetaPathFinder):
    """Patches the package right after its own import, so that the real order is kept."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "exllamav2":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert spec is not None
        assert spec.loader is not None
        loader: Any = spec.loader
        loader.exec_module = _then_patch(loader.exec_module)
        return spec


def _then_patch(run: Callable[[types.ModuleType], None]) -> Callable[[types.ModuleType], None]:
    def run_and_patch(module: types.ModuleType) -> None:
        run(module)
        import torch
        from exllamav2 import device

        device.global_streams.update({i: torch.cuda.Stream() for i in range(8)})
        for name, loaded in list(sys.modules.items()):
            if not name.startswith("exllamav2") or name == EXTENSION:
                continue
            if hasattr(loaded, "_torch_device"):
                _replace(loaded, "_torch_device", lambda _: "cpu")
            if hasattr(loaded, "safe_move_tensor"):
                _replace(loaded, "safe_move_tensor", lambda tensor, *_, **__: tensor)
            if hasattr(loaded, "set_device_streams"):
                loaded.__dict__["set_device_streams"] = lambda: None
        noise = float(os.environ.get(NOISE, "0"))
        if noise:
            _add_noise(torch, module.__dict__["ExLlamaV2"], noise)

    return run_and_patch


def _replace(module: types.ModuleType, name: str, double: Any) -> None:
    REPLACED.setdefault(name, getattr(module, name))
    module.__dict__[name] = double


def _add_noise(torch: Any, model: Any, most: float) -> None:
    forward = model.forward_chunk

    def forward_chunk(self: Any, *arguments: Any, **named: Any) -> Any:
        result = forward(self, *arguments, **named)
        if "logits" in result:
            logits = result["logits"]
            rows, queries, width = logits.shape
            chance = torch.Generator().manual_seed(1000 * rows + queries)
            noise = (2 * torch.rand(width, generator=chance) - 1) * most
            logits.copy_(logits.float() + noise)
        return result

    model.forward_chunk = forward_chunk


def _extension() -> types.ModuleType:
    module = types.ModuleType(EXTENSION)
    module.__spec__ = importlib.machinery.ModuleSpec(EXTENSION, None)
    for function in (
        emulated_cache.fp16_to_q_kv,
        emulated_cache.q_to_fp16_kv,
        emulated_matrices.make_group_map,
        emulated_matrices.make_q_matrix,
        emulated_matrices.reconstruct,
        emulated_matrices.tensor_remap,
        emulated_matrices.tensor_remap_4bit,
        emulated_matrices.gemm_half_q_half,
        emulated_matrices.make_q_attn,
        emulated_matrices.q_attn_forward_1,
        emulated_matrices.q_attn_forward_2,
        emulated_matrices.make_q_mlp,
        emulated_matrices.q_mlp_forward_,
        emulated_functions.stloader_read,
        emulated_functions.rms_norm,
        emulated_functions.layer_norm,
        emulated_functions.gen_mrope_pos_ids,
        emulated_functions.head_norm,
        emulated_functions.rope_,
        emulated_functions.softcap_,
        emulated_functions.count_match,
        emulated_functions.partial_strings_match,
        emulated_functions.cache_rotate,
        emulated_functions.fast_fill_cpu_ones_bool,
        emulated_functions.fast_fadd_cpu,
        emulated_functions.logit_filter_exclusive,
        emulated_functions.apply_rep_penalty,
        emulated_functions.sample_basic,
    ):
        setattr(module, function.__name__, function)
    for name in ("free_q_matrix", "free_q_attn", "free_q_mlp"):
        setattr(module, name, emulated_matrices.free)
    for name in ("q_attn_set_loras", "q_mlp_set_loras"):
        setattr(module, name, emulated_matrices.set_loras)

    def missing(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: Any, **__: Any) -> None:
            raise RuntimeError(f"{EXTENSION} is emulated and has no {name}")

        return refuse

    module.__getattr__ = missing  # type: ignore[method-assign]
    return module
