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
import itertools
import os
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

EXTENSION = "exllamav2_ext"
TOTAL_BYTES = 8 << 30
UUID = "00000000-0000-0000-0000-00000000c0de"


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
            if not name.startswith("exllamav2"):
                continue
            if hasattr(loaded, "_torch_device"):
                loaded.__dict__["_torch_device"] = lambda _: "cpu"
            if hasattr(loaded, "safe_move_tensor"):
                loaded.__dict__["safe_move_tensor"] = lambda tensor, *_, **__: tensor
            if hasattr(loaded, "set_device_streams"):
                loaded.__dict__["set_device_streams"] = lambda: None

    return run_and_patch


def _extension() -> types.ModuleType:
    module = types.ModuleType(EXTENSION)
    module.__spec__ = importlib.machinery.ModuleSpec(EXTENSION, None)
    for function in (
        stloader_read,
        rms_norm,
        head_norm,
        rope_,
        softcap_,
        count_match,
        partial_strings_match,
        cache_rotate,
        fast_fill_cpu_ones_bool,
        fast_fadd_cpu,
        logit_filter_exclusive,
        apply_rep_penalty,
        sample_basic,
    ):
        setattr(module, function.__name__, function)

    def missing(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: Any, **__: Any) -> None:
            raise RuntimeError(f"{EXTENSION} is emulated and has no {name}")

        return refuse

    module.__getattr__ = missing  # type: ignore[method-assign]
    return module


def stloader_read(file: str, offset: int, size: int, target: Any) -> None:
    import torch

    with Path(file).open("rb") as stream:
        stream.seek(offset)
        data = stream.read(size)
    assert len(data) == size, "I/O error reading tensor"
    target.view(-1).view(torch.uint8).copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))


def rms_norm(x: Any, weight: Any, y: Any, epsilon: float) -> None:
    import torch

    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    y.copy_(wide * scale * weight.float())


def head_norm(x: Any, weight: Any, bias: Any, y: Any, epsilon: float, is_rms: bool) -> None:
    assert is_rms, "only RMS head norms are emulated"
    assert bias.is_meta
    rms_norm(x, weight, y, epsilon)


def rope_(
    x: Any, sin: Any, cos: Any, past: int, heads: int, dim: int, offsets: Any, is_neox: bool
) -> None:
    import torch

    rows = x.view(x.shape[0], -1, heads, dim)
    length = rows.shape[1]
    for batch, row in enumerate(rows):
        start = past
        if not offsets.is_meta:
            start = int(offsets[batch]) if past == -1 else past + int(offsets[batch])
        s = sin[0, 0, start : start + length, :dim][:, None].float()
        c = cos[0, 0, start : start + length, :dim][:, None].float()
        value = row.float()
        half = dim // 2
        if is_neox:
            turned = torch.cat((-value[..., half:], value[..., :half]), -1)
        else:
            turned = torch.stack((-value[..., 1::2], value[..., ::2]), -1).flatten(-2)
        rows[batch] = (value * c + turned * s).half()


def softcap_(x: Any, cap: float) -> None:
    x.copy_((x.float() / cap).tanh() * cap)


def count_match(left: Any, right: Any, longest: int) -> int:
    longest = min(longest, right.shape[1])
    if longest <= 0:
        return 0
    differs = (left[0, :longest] != right[0, :longest]).nonzero()
    return int(differs[0]) if len(differs) else int(longest)


def partial_strings_match(text: Any, offsets: Any, strings: Any) -> int:
    said = text.tobytes().decode("utf-32-le")
    places = np.frombuffer(offsets.tobytes(), dtype=np.int32)
    raw = strings.tobytes()
    wanted = [raw[a:b].decode("utf-32-le") for a, b in itertools.pairwise(places)]
    found = [said.find(one) for one in wanted if one in said]
    if found:
        return int(min(found))
    return -2 if any(said.endswith(s[:n]) for s in wanted for n in range(1, len(s))) else -1


def cache_rotate(cache: Any, order: Any, _buffer: Any) -> None:
    places = order.tolist()
    first = cache[places[0]].clone()
    for to, source in itertools.pairwise(places):
        cache[to] = cache[source]
    cache[places[-1]] = first


def fast_fill_cpu_ones_bool(target: Any) -> None:
    target.fill_(True)


def fast_fadd_cpu(target: Any, added: Any) -> None:
    target.add_(added)


def logit_filter_exclusive(allowed: Any, lists: Sequence[Sequence[int]]) -> None:
    import torch

    for row, ids in enumerate(lists):
        mask = torch.zeros(allowed.shape[-1], dtype=torch.bool)
        mask[torch.as_tensor(list(ids))] = True
        allowed[row] &= mask


def apply_rep_penalty(
    sequence: Any,
    penalty: float,
    sustain: int,
    decay: int,
    frequency: float,
    presence: float,
    logits: Any,
) -> None:
    """Without decay, over the whole sequence: all that the engine asks for."""
    assert (sustain, decay, frequency, presence) == (-1, 0, 0.0, 0.0)
    ids = sequence[0].unique()
    ids = ids[ids < logits.shape[-1]]
    seen = logits[0, 0, ids]
    logits[0, 0, ids] = seen.where(seen <= 0, seen / penalty).where(seen > 0, seen * penalty)


def sample_basic(
    logits: Any,
    temperature: float,
    top_k: int,
    top_p: float,
    top_a: float,
    min_p: float,
    tfs: float,
    typical: float,
    chance: float,
    out_tokens: Any,
    out_probs: Any,
    _out_top_probs: Any,
    _out_top_tokens: Any,
    allowed: Any,
    *_others: Any,
) -> list[float]:
    import torch

    assert not top_a
    assert not tfs
    row = logits[0, 0].clone()
    if not allowed.is_meta:
        row[~allowed.view(-1)] = -float("inf")
    if temperature < 0.01:
        temperature, top_k = 1.0, 1
    probs, ids = torch.softmax(row / temperature, -1).sort(descending=True, stable=True)
    if top_k > 0:
        probs, ids = probs[:top_k], ids[:top_k]
    if 0 < top_p < 1:
        kept = int((probs.cumsum(0) < top_p).sum()) + 1
        probs, ids = probs[:kept], ids[:kept]
    if min_p > 0:
        keep = probs >= probs[0] * min_p
        probs, ids = probs[keep], ids[keep]
    if 0 < typical < 1:
        probs, ids = _typical(torch, probs / probs.sum(), ids, typical)
    probs = probs / probs.sum()
    chosen = min(int((probs.cumsum(0) < chance).sum()), len(probs) - 1)
    out_tokens[0, 0] = ids[chosen]
    out_probs[0, 0] = probs[chosen]
    return []


def _typical(torch: Any, probs: Any, ids: Any, share: float) -> tuple[Any, Any]:
    surprise = -torch.log(probs.clamp(min=1e-10))
    order = (surprise - (probs * surprise).sum()).abs().argsort(stable=True)
    kept = int((probs[order].cumsum(0) < share).sum()) + 1
    return probs[order][:kept], ids[order][:kept]
