"""The sizes of a model that decide how much memory it takes."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes that decide how much memory a model takes.

    Attributes:
        layers: decoder layers.
        hidden, intermediate: widths, in elements.
        heads, kv_heads, head_dim: of the attention.
        vocabulary: rows of the embedding.
        context: longest sequence by `config.json`.
        has_softcap: scores are capped, so that attention without a cache keeps all of them.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    has_softcap: bool = False
