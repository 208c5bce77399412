"""What is done to a row of logits before the library samples from it. Pure, numpy only."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from services.neuron.engine_api.task import SamplingParams
from services.neuron.engines.common.logprobs import Row
from services.neuron.engines.common.sampling import BANNED_AT


class LogitRules:
    """Bias and output penalties of one request, with the counts of its output so far.

    Order, as cortex.v1.Sampling says: bias before all else, then frequency and presence penalties
    over the output alone.
    """

    def __init__(self, params: SamplingParams, output: Iterable[int], *, vocabulary: int) -> None:
        """Prepares the rules.

        Args:
            params: of the request.
            output: tokens generated so far.
            vocabulary: biases for ids from here on are ignored.
        """
        known = {i: bias for i, bias in params.logit_bias.items() if 0 <= i < vocabulary}
        self._bias_ids = np.fromiter(known, np.int64, len(known))
        self._bias = np.array(
            [-np.inf if bias <= BANNED_AT else bias for bias in known.values()], np.float32
        )
        self._frequency = np.float32(params.frequency_penalty)
        self._presence = np.float32(params.presence_penalty)
        self._counts: dict[int, int] = {}
        for token_id in output:
            self.count(token_id)

    @property
    def is_idle(self) -> bool:
        """True if these rules never change a row of logits."""
        return not (self._bias_ids.size or self._frequency or self._presence)

    def count(self, token_id: int) -> None:
        """Notes a token of the output."""
        if self._frequency or self._presence:
            self._counts[token_id] = self._counts.get(token_id, 0) + 1

    def apply(self, row: Row, *, banned: Collection[int] = ()) -> None:
        """Changes a row in place.

        Args:
            row: (vocabulary,) float32.
            banned: tokens that must not come now; they keep a finite weight below all others, so
                that a grammar that allows nothing else can still end.
        """
        if self._bias_ids.size:
            row[self._bias_ids] += self._bias
        if self._counts:
            ids = np.fromiter(self._counts, np.int64, len(self._counts))
            counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
            row[ids] -= self._frequency * counts + self._presence
        if banned:
            row[list(banned)] = np.float32(-1e30)
