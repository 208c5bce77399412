"""An output constraint as a filter of ExLlamaV2's sampler.

The mask is computed on the generator's thread pool while the device works. An error of the grammar
is kept for the loop to find: an exception here would end the whole batch's step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from exllamav2.generator.filters import ExLlamaV2Filter
from numpy.typing import NDArray

from services.neuron.engines.common.constraint import BadConstraintError, OutputConstraint


class ConstraintFilter(ExLlamaV2Filter):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """Masks what the constraint does not allow.

    Attributes:
        error: why the output cannot go on, None while it can.
    """

    def __init__(self, model: Any, tokenizer: Any, constraint: OutputConstraint) -> None:
        super().__init__(model, tokenizer)
        self._constraint = constraint
        self._allowed: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self.error: BadConstraintError | None = None

    @property
    def is_finished(self) -> bool:
        """Nothing but the end may follow."""
        return self._constraint.is_finished

    def begin(self, prefix_str: str) -> None:
        """Nothing: the constraint was brought to its place before the job began."""

    def feed(self, token: Any) -> None:
        """Moves on behind a sampled token."""
        if self.error is not None or self._constraint.is_finished:
            return
        try:
            self._constraint.accept(int(token))
        except BadConstraintError as error:
            self.error = error

    def use_background_worker(self) -> bool:
        """True: the mask takes up to milliseconds, which the device's work hides."""
        return True

    def can_mask_logits(self) -> bool:
        """True: the library's other way builds lists of allowed ids."""
        return True

    def prepare_logit_mask(self) -> bool:
        """Computes the mask for the next token; True as the library wants it."""
        bits = self._constraint.bitmask().view(np.uint8)
        self._allowed = np.unpackbits(bits, bitorder="little").astype(np.bool_)
        return True

    def mask_logits(self, logits: Any) -> Any:
        """Applies the mask to a row of logits, in place."""
        row: NDArray[np.float32] = logits.numpy()
        known = min(self._allowed.size, row.size)
        row[:known][~self._allowed[:known]] = -np.inf
        row[known:] = -np.inf
        return logits
