"""What a rank takes of the weights of a layer.

A layer's weights are what the library's `load_weight` gives: a tensor (outputs, inputs), the same
with a bias, or the tensors of a GPTQ matrix. By columns a rank computes some of the outputs, by
rows it adds its part to all of them.

Source: exllamav2 0.3.2 module.py, ext.py; the GPTQ layout: eight 4-bit numbers to a word, inputs
along the words of `qweight`, outputs along those of `qzeros`.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from services.neuron.engines.exllamav2.parallel.rank import Rank

_PER_WORD: Final = 8


class IndivisibleError(Exception):
    """The weights cannot be divided; the message says why, in a sentence."""


def by_columns(found: Any, rank: Rank) -> Any:
    """The weights of some of the outputs."""
    if isinstance(found, dict):
        width = found["scales"].shape[1]
        cut = rank.share(width)
        made = {
            "qweight": found["qweight"][:, cut],
            "scales": found["scales"][:, cut],
            "qzeros": found["qzeros"][:, rank.share(width // _PER_WORD)],
        }
        if "g_idx" in found:
            made["g_idx"] = found["g_idx"]
        if "bias" in found:
            made["bias"] = found["bias"][cut]
        return made
    if isinstance(found, tuple):
        weight, bias = found
        return weight[rank.share(weight.shape[0])], bias[rank.share(bias.shape[0])]
    return found[rank.share(found.shape[0])]


def by_rows(found: Any, rank: Rank) -> Any:
    """The weights of some of the inputs; the bias counts on rank 0 alone.

    Raises:
        IndivisibleError: a group of quantised inputs lies on both sides of a cut.
    """
    if isinstance(found, dict):
        return _grouped_rows(found, rank)
    if isinstance(found, tuple):
        weight, bias = found
        return weight[:, rank.share(weight.shape[1])], _on_first(bias, rank)
    return found[:, rank.share(found.shape[1])]


def of_vocabulary(found: Any, rank: Rank, vocabulary: int) -> Any:
    """This rank's rows of the vocabulary, padded with zero rows to the common size.

    Raises:
        IndivisibleError: the head is quantised.
    """
    if isinstance(found, dict):
        raise IndivisibleError('The head is quantised; use parallel = "layers".')
    cut = rank.vocabulary_share(vocabulary)
    rows = found[cut.start : min(cut.stop, vocabulary)]
    missing = cut.stop - cut.start - rows.shape[0]
    return torch.nn.functional.pad(rows, (0, 0, 0, missing))


def _grouped_rows(found: dict[str, Any], rank: Rank) -> dict[str, Any]:
    groups = found["scales"].shape[0]
    inputs = found["qweight"].shape[0] * _PER_WORD
    size = inputs // groups
    cut = rank.share(groups)
    if groups == 1:  # one scale for the whole column: everybody's
        cut = slice(0, 1)
    elif groups % rank.count:
        raise IndivisibleError(
            f"{groups} groups of {size} quantised inputs cannot be divided among {rank.count}"
            ' GPUs; use parallel = "layers".'
        )
    if "g_idx" in found and not _is_in_order(found["g_idx"], size):
        raise IndivisibleError(
            "The weights were quantised with desc_act, which scatters their groups; use"
            ' parallel = "layers".'
        )
    made = {
        "qweight": found["qweight"][rank.share(inputs // _PER_WORD)],
        "scales": found["scales"][cut],
        "qzeros": found["qzeros"][cut],
    }
    if "bias" in found:
        made["bias"] = _on_first(found["bias"], rank)
    return made


def _is_in_order(group_of_input: Any, size: int) -> bool:
    """Whether the groups lie one behind the other; all zeros says nothing and means that too."""
    order = torch.arange(len(group_of_input), dtype=group_of_input.dtype) // size
    return bool((group_of_input == order).all() or (group_of_input == 0).all())


def _on_first(bias: Any, rank: Rank) -> Any:
    return bias if rank.number == 0 else torch.zeros_like(bias)
