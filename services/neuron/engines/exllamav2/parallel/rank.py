"""Which of how many, and how a model's sizes are divided among them. Pure."""

from __future__ import annotations

import dataclasses
import math
from typing import Final

from services.neuron.engines.exllamav2.files.geometry import Geometry
from services.neuron.engines.exllamav2.files.weights import TensorSizes

_ROWS: Final = 32
"""The head's width is a multiple of this; so is every share of it."""
_DIVIDED: Final = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens",
    "lm_head",
)  # fmt: skip
"""Parts of tensor names. All others, the norms, are small, and whole on every rank."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rank:
    """One of the processes that run a model together.

    Attributes:
        number: from 0; 0 samples, and speaks with the daemon.
        count: how many there are.
    """

    number: int
    count: int

    def share(self, whole: int) -> slice:
        """This rank's part of something that divides evenly."""
        each = whole // self.count
        return slice(self.number * each, (self.number + 1) * each)

    def vocabulary_share(self, vocabulary: int) -> slice:
        """This rank's part of the vocabulary; the last ones reach beyond its end."""
        each = vocabulary_rows(vocabulary, self.count)
        return slice(self.number * each, (self.number + 1) * each)


def vocabulary_rows(vocabulary: int, count: int) -> int:
    """Rows of the embedding, and outputs of the head, that each rank holds."""
    return math.ceil(vocabulary / (count * _ROWS)) * _ROWS


def share_of_geometry(geometry: Geometry, count: int) -> Geometry:
    """The sizes of what one rank holds."""
    return dataclasses.replace(
        geometry,
        intermediate=geometry.intermediate // count,
        heads=geometry.heads // count,
        kv_heads=geometry.kv_heads // count,
        vocabulary=vocabulary_rows(geometry.vocabulary, count),
    )


def share_of_weights(weights: TensorSizes, count: int) -> TensorSizes:
    """The tensors that one rank holds."""
    return TensorSizes({
        name: math.ceil(size / count) if any(part in name for part in _DIVIDED) else size
        for name, size in weights.tensors.items()
    })  # fmt: skip
