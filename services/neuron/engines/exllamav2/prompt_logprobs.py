"""Log probabilities of a prompt's own tokens: one pass without a cache, the head in pieces.

The generator never computes them: its prefill stops before the head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from services.neuron.engine import TokenLogprob
from services.neuron.engines.exllamav2.generators import Parts
from services.neuron.generation.logprobs import LogprobReader

_ROWS = 16
"""Rows through the head at a time: the library's buffer for it is that long."""


def prompt_logprobs(
    parts: Parts, prompt: Sequence[int], *, top: int, piece: Callable[[int], bytes]
) -> tuple[TokenLogprob, ...]:
    """One entry per prompt token; the first, which has none, is told with 0.

    Args:
        parts: of the model.
        prompt: at most `shape.input_tokens` ids, no pictures.
        top: how many alternatives to report.
        piece: a token's own bytes.
    """
    first = TokenLogprob(prompt[0], b"", 0.0)
    if len(prompt) == 1:
        return (first,)
    entries = [first]
    for begin, logits in _rows(parts, prompt):
        for offset, row in enumerate(logits):
            reader = LogprobReader(row, top=top, piece=piece)
            entries.append(reader.of(prompt[begin + offset + 1]))
    return tuple(entries)


def last_states(parts: Parts, token_ids: Sequence[int]) -> Any:
    """(tokens, hidden) states behind the final norm, on the device."""
    torch = parts.library.torch
    ids = torch.tensor([list(token_ids)], dtype=torch.long)
    with torch.inference_mode():
        _, state = parts.model.forward(
            ids, last_id_only=True, return_last_state=True, loras=list(parts.loras) or None
        )
        # The library hands out the state before its final norm.
        norm = parts.model.modules[parts.model.head_layer_idx - 1]
        return norm.forward(state)[0]


def _rows(parts: Parts, prompt: Sequence[int]) -> Any:
    """Pairs of position and (up to 16, vocabulary) float32 logits, for all but the last token."""
    states = last_states(parts, prompt)
    head = parts.model.modules[parts.model.head_layer_idx]
    with parts.library.torch.inference_mode():
        for begin in range(0, len(prompt) - 1, _ROWS):
            end = min(begin + _ROWS, len(prompt) - 1)
            logits = head.forward(states[None, begin:end], loras=list(parts.loras) or None)
            if parts.model.config.final_logit_softcapping:
                cap = parts.model.config.final_logit_softcapping
                logits = (logits.float() / cap).tanh() * cap
            yield begin, logits[0, :, : parts.model.config.vocab_size].float().cpu().numpy()
