"""The library's modules with a part of their weights, which come together in all-reduces.

Attention has some of the heads, and its cache those of their keys and values; the feed-forward part
some of its inner width; embedding and head some of the vocabulary. Norms are whole. Each module of
a layer gives its part of the sum without the residual, which is added behind the all-reduce.

The library's classes look their sizes up in the configuration, which is made smaller before; only
reading the weights and the sums are done here. `divide` gives its modules these classes.

Source: exllamav2 0.3.2 attn.py, mlp.py, linear.py, embedding.py; `has_residual` is understood by
the extension too (q_attn.cu, q_mlp.cu).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from exllamav2.attn import ExLlamaV2Attention
from exllamav2.embedding import ExLlamaV2Embedding
from exllamav2.linear import ExLlamaV2Linear
from exllamav2.mlp import ExLlamaV2MLP
from torch import nn

from services.neuron.engines.exllamav2.parallel import slices
from services.neuron.engines.exllamav2.parallel.collectives import Collectives
from services.neuron.engines.exllamav2.parallel.rank import Rank, vocabulary_rows

Cut = Callable[[Any, Rank], Any]
_BY_ROWS: Final = ("o_proj", "down_proj")
_BY_COLUMNS: Final = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")


def shrink(config: Any, count: int) -> None:
    """Makes the library's configuration that of one rank, before the model is made of it."""
    config.num_attention_heads //= count
    config.num_key_value_heads //= count
    config.intermediate_size //= count


def divide(model: Any, collectives: Collectives) -> None:
    """Makes a model, of which nothing is loaded yet, one rank's part of it."""
    for module in model.modules:
        if isinstance(module, ExLlamaV2Attention | ExLlamaV2MLP):
            kind = SummedAttention if isinstance(module, ExLlamaV2Attention) else SummedMlp
            module.has_residual = False
            _become(module, kind, collectives)
            for linear, cut in _linears(module):
                _become(linear, PartialLinear, collectives)
                linear.cut = cut
    _become(model.modules[0], PartialEmbedding, collectives)
    head = model.modules[model.head_layer_idx]
    _become(head, PartialHead, collectives)
    head.out_features = vocabulary_rows(model.config.vocab_size, collectives.rank.count)


def _become(module: Any, kind: type, collectives: Collectives) -> None:
    module.__class__ = kind
    module.collectives = collectives


def _linears(module: Any) -> Iterator[tuple[Any, Cut]]:
    for names, cut in ((_BY_ROWS, slices.by_rows), (_BY_COLUMNS, slices.by_columns)):
        for name in names:
            linear = getattr(module, name, None)
            if linear is not None:
                yield linear, cut


class PartialLinear(ExLlamaV2Linear):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """A matrix of which only a part is read."""

    collectives: Collectives
    cut: Cut

    def load_weight(self, override_key: str | None = None, cpu: bool = False) -> Any:  # noqa: FBT001, FBT002
        """The library's: reads the weights; here into host memory first, and a part of them.

        Raises:
            IndivisibleError: they cannot be divided.
        """
        found = super().load_weight(override_key, cpu=True)
        part = self.cut(found, self.collectives.rank)
        return _placed(part, "cpu" if cpu else self.device())


class PartialHead(ExLlamaV2Linear):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """The head for some of the vocabulary: rank 0 gets the logits of all of it, the others None."""

    collectives: Collectives
    padding: int
    beside: Callable[[Any], contextlib.AbstractContextManager[None]] | None = None
    """Around every run on rank 0: of one outside a forward pass the others must hear."""

    def load(self, *args: Any, **kwargs: Any) -> None:
        """The library's: reads the weights."""
        # The library's lies behind the whole vocabulary; the slices have their own.
        padding, self.padding = self.padding, 0
        try:
            super().load(*args, **kwargs)
        finally:
            self.padding = padding

    def load_weight(self, override_key: str | None = None, cpu: bool = False) -> Any:  # noqa: FBT001, FBT002
        """The library's: reads the weights; here those of some tokens."""
        found = super().load_weight(override_key, cpu=True)
        vocabulary = self.model.config.vocab_size
        part = slices.of_vocabulary(found, self.collectives.rank, vocabulary)
        return _placed(part, "cpu" if cpu else self.device())

    def forward(self, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        """The library's: the logits."""
        beside = self.beside or contextlib.nullcontext
        with beside(hidden_states):
            whole = self.collectives.gather(super().forward(hidden_states, *args, **kwargs))
        if whole is None:
            return None
        return whole[..., : self.model.config.vocab_size + self.padding]


class PartialEmbedding(ExLlamaV2Embedding):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """The embedding of some of the vocabulary, in host memory; the sum on the device has all."""

    collectives: Collectives

    def load(self, *args: Any, **kwargs: Any) -> None:
        """The library's: reads the weights."""
        super().load(*args, **kwargs)
        # It may be beyond these rows, and matters to training alone.
        self.embedding.padding_idx = None

    def load_weight(self, override_key: str | None = None, cpu: bool = False) -> Any:  # noqa: FBT001, FBT002
        """The library's: reads the weights; here those of some tokens."""
        found = super().load_weight(override_key, cpu=cpu)
        vocabulary = self.model.config.vocab_size
        return _placed(slices.of_vocabulary(found, self.collectives.rank, vocabulary), "cpu")

    def forward(self, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        """The library's: states of token ids; here on the device at once."""
        cut = self.collectives.rank.vocabulary_share(self.model.config.vocab_size)
        ids = hidden_states.clamp(min=0)
        is_elsewhere = (ids < cut.start) | (ids >= cut.stop)
        own = (ids - cut.start).masked_fill(is_elsewhere, 0)
        part = super().forward(own, *args, **kwargs)
        part[is_elsewhere] = 0
        part = part.to(self.model.modules[1].device())
        self.collectives.add(part)
        return part


class SummedAttention(ExLlamaV2Attention):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """Some of the heads, and the sum of all of them."""

    collectives: Collectives

    def forward(self, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        """The library's: the states behind the layer's attention."""
        return _summed(self, super().forward, hidden_states, *args, **kwargs)


class SummedMlp(ExLlamaV2MLP):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """Some of the inner width, and the sum of all of it."""

    collectives: Collectives

    def forward(self, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        """The library's: the states behind the layer's feed-forward part."""
        return _summed(self, super().forward, hidden_states, *args, **kwargs)


def _summed(
    module: Any, forward: Callable[..., Any], states: Any, *args: Any, **kwargs: Any
) -> Any:
    # The extension writes its part where its input was.
    given = states if module.q_handle is None else states.clone()
    part = forward(given, *args, **kwargs)
    module.collectives.add(part)
    part += states
    return part


def _placed(part: Any, device: Any) -> Any:
    """The same on a device, in memory of its own: what was cut away must not be kept."""
    if isinstance(part, dict):
        return {name: _moved(tensor, device) for name, tensor in part.items()}
    if isinstance(part, tuple):
        return tuple(nn.Parameter(_moved(tensor, device), requires_grad=False) for tensor in part)
    return nn.Parameter(_moved(part, device), requires_grad=False)


def _moved(tensor: Any, device: Any) -> Any:
    # A contiguous slice shares the memory of the whole; `clone` does not.
    return tensor.contiguous().clone().to(device)
