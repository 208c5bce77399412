"""Log probabilities of tokens from a row of logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.neuron.engine_api.events import TokenLogprob

Row: TypeAlias = NDArray[np.float32]
"""(vocabulary,) float32: one token's logits."""


class LogprobReader:
    """Reads one row before anything (bias, mask, temperature, truncation) has changed it."""

    def __init__(self, logits: Row, *, top: int, piece: Callable[[int], bytes]) -> None:
        """Measures the row once.

        Args:
            logits: raw logits, not changed and not kept.
            top: how many alternatives to report.
            piece: a token's own bytes.
        """
        peak = float(logits.max())
        self._total = peak + float(np.log(np.exp(logits - np.float32(peak)).sum(dtype=np.float64)))
        self._values = logits.copy()
        self._piece = piece
        self._top = _largest(logits, top)

    def of(self, token_id: int) -> TokenLogprob:
        """The token's log probability, with the likeliest alternatives, best first."""
        return TokenLogprob(
            token_id,
            self._piece(token_id),
            self._logprob(token_id),
            tuple(TokenLogprob(i, self._piece(i), self._logprob(i)) for i in self._top),
        )

    def _logprob(self, token_id: int) -> float:
        return float(self._values[token_id]) - self._total


def _largest(logits: Row, count: int) -> list[int]:
    count = min(count, logits.size)
    if count == 0:
        return []
    candidates = np.argpartition(logits, -count)[-count:]
    # Ties go to the lower id, so that reports do not depend on the partition's order.
    order = np.lexsort((candidates, -logits[candidates]))
    return [int(i) for i in candidates[order]]
