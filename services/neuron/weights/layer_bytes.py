"""What the layers of a GGUF model take, by the names and sizes of its tensors. Pure.

Source of the names: llama.cpp `gguf-py/gguf/constants.py`, `TENSOR_NAMES`.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

_BLOCK: Final = re.compile(r"blk\.(\d{1,6})\.(ffn_(?:up|down|gate|gate_up)_(?:ch|)exps\.)?")
_EMBEDDINGS: Final = "token_embd.weight"
_OUTPUT: Final = "output"
_OUTPUT_WEIGHTS: Final = "output.weight"


@dataclasses.dataclass(frozen=True, slots=True)
class LayerBytes:
    """Bytes of weights, layer by layer.

    Attributes:
        blocks: of each block, in order.
        experts: what of them belongs to the experts of a mixture.
        output: of the layer behind the last block, without what it shares with `host`.
        shared: what the output shares with the embeddings, and has a copy of on a GPU.
        host: of what is looked up in the host's memory: the embeddings.
    """

    blocks: tuple[int, ...] = ()
    experts: tuple[int, ...] = ()
    output: int = 0
    shared: int = 0
    host: int = 0

    @property
    def count(self) -> int:
        """Layers that can be on GPUs, the output counted as one; 0 where nothing is known."""
        return len(self.blocks) + 1 if self.blocks else 0

    def on_gpus(self, layers: int, *, cpu_experts: int = 0) -> int:
        """Bytes on GPUs where so many layers are there: the output, then the blocks from the end.

        Args:
            layers: at most `count`.
            cpu_experts: of so many blocks, from the first, the experts stay on the CPU.
        """
        if layers <= 0:
            return 0
        first = max(0, self.count - layers)
        there = sum(self.blocks[first:]) - sum(self.experts[first:cpu_experts])
        return there + self.output + self.shared

    def on_host(self, layers: int, *, cpu_experts: int = 0) -> int:
        """Bytes in the host's memory; arguments as for `on_gpus`."""
        whole = sum(self.blocks) + self.output + self.host
        kept = self.shared if layers > 0 else 0
        return whole + kept - self.on_gpus(layers, cpu_experts=cpu_experts)


NO_LAYERS: Final = LayerBytes()
"""Of files whose layers are not known."""


def tallied(tensors: Iterable[tuple[str, int]]) -> LayerBytes:
    """Adds the tensors of a GGUF model up by layer.

    Args:
        tensors: names and bytes, of all parts of the file.
    """
    blocks, experts, rest = Counter[int](), Counter[int](), Counter[str]()
    for name, size in tensors:
        found = _BLOCK.match(name)
        if found is None:
            rest[name] += size
            continue
        number = int(found[1])
        blocks[number] += size
        experts[number] += size if found[2] else 0
    output = sum(size for name, size in rest.items() if name.startswith(_OUTPUT))
    numbers = sorted(blocks)
    return LayerBytes(
        blocks=tuple(blocks[number] for number in numbers),
        experts=tuple(experts[number] for number in numbers),
        output=output,
        shared=0 if rest[_OUTPUT_WEIGHTS] else rest[_EMBEDDINGS],
        host=rest.total() - output,
    )
