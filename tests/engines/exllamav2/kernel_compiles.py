"""A program: what Triton compiles of our kernels, without a device and outside its interpreter.

`variants` prints how many variants each kernel has after the first call of a model and after all
kinds of traffic behind it, with a driver and a compiler that do nothing. `spills` compiles 64-row
tiles for compute capability 8.0 and prints bytes spilled, by head size.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import driver

from services.neuron.engines.exllamav2.attention import kernels
from services.neuron.engines.exllamav2.attention.paged_triton import PagedAttention, warps

PAGE = 256


class NoDriver:
    """Says what a GPU would, and launches nothing."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


class Compiled:
    """A kernel that does nothing."""

    function = packed_metadata = None

    def launch_metadata(self, *_: Any) -> None: ...

    def run(self, *_: Any) -> None: ...


def variants() -> None:
    driver.set_active(NoDriver())
    for kernel in (kernels.append, kernels.attend, kernels.combine):
        kernel.device_caches[0]  # made at first sight, with the compiler itself
        kernel.compile = lambda *_, **__: Compiled()
    attention = PagedAttention()
    call(attention, batch=1, queries=600, columns=3)
    first = counts()
    for batch, queries, columns in itertools.product(
        (1, 2, 7, 16, 64), (1, 2, 5, 17, 100, 512), (1, 2, 3, 16, 40)
    ):
        call(attention, batch=batch, queries=queries, columns=columns)
    call(attention, batch=1, queries=1, columns=512)
    sys.stdout.write(json.dumps({"first": first, "later": counts()}))


def counts() -> dict[str, int]:
    named = {"append": kernels.append, "attend": kernels.attend, "combine": kernels.combine}
    return {name: len(kernel.device_caches[0][0]) for name, kernel in named.items()}


def call(attention: PagedAttention, *, batch: int, queries: int, columns: int) -> None:
    heads, kv_heads, dim = 8, 2, 64
    pages = torch.empty(4, PAGE, kv_heads, dim, dtype=torch.half)  # no kernel reads or writes it
    new = torch.empty(batch, queries, kv_heads, dim, dtype=torch.half)
    attention.attend(
        torch.empty(batch, queries, heads, dim, dtype=torch.half), pages, pages, new, new,
        cache_seqlens=torch.zeros(batch, dtype=torch.int32),
        block_table=torch.zeros(batch, columns, dtype=torch.int32),
        scale=0.1, causal=True, window_left=-1, softcap=0.0,
    )  # fmt: skip


def spills() -> None:
    sys.stdout.write(json.dumps({dim: spilled(dim) for dim in (64, 128, 256)}))


def spilled(dim: int) -> int:
    """Bytes that a 64-row tile stores and loads beside its registers."""
    constants = {
        "GROUP": 4, "D": dim, "DP": dim, "PAGE": PAGE, "BM": 64, "BN": 64 if dim <= 128 else 32,
        "CAUSAL": True, "SOFTCAP": False, "WINDOW": False, "SPLIT": False,
    }  # fmt: skip
    kinds = {"BT": "*i32", "SL": "*i32", "scale_log2": "fp32", "softcap": "fp32"}
    kinds |= dict.fromkeys(("Q", "KC", "VC", "O", "PO", "PL"), "*fp16")
    names = [parameter.name for parameter in kernels.attend.params]
    signature = {
        name: "constexpr" if name in constants else kinds.get(name, "i32") for name in names
    }
    aligned = {
        (at,): [["tt.divisibility", 16]]
        for at, name in enumerate(names)
        if signature[name].startswith("*")
    }
    source = ASTSource(
        kernels.attend,
        signature,
        {(names.index(name),): value for name, value in constants.items()},
        aligned,
    )
    options = {"num_warps": warps(64, dim, (8, 0)), "num_stages": 2}
    made = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options)
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(made.asm["ptx"])
        file.flush()
        assembler = pathlib.Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
        command = [str(assembler), "-v", "-arch", "sm_80", file.name, "-o", "/dev/null"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return sum(map(int, re.findall(r"(\d+) bytes spill", said)))


if __name__ == "__main__":
    {"variants": variants, "spills": spills}[sys.argv[1]]()
