"""Chooses the next token by llama.cpp's own sampler chain."""

from __future__ import annotations

import ctypes
import math
import secrets
from collections.abc import Iterable
from typing import Final

from services.neuron.engine_api.task import SamplingParams
from services.neuron.engines.common.logprobs import Row
from services.neuron.engines.common.sampling import BANNED_AT, PositionalBits
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.structs import LogitBias

_MIN_KEEP: Final = 1
_LAST_SEED: Final = 0xFFFF_FFFE
"""All 32 bits set would mean "draw a seed"."""


class Sampler:
    """One output's sampler: logit bias, penalties, truncation, temperature, then a draw.

    Greedy where the temperature is 0. Where a seed is given, each draw depends on it and on the
    position in the output alone, so that a resumed output goes on as it would have unbroken.
    `close` frees the chain.
    """

    def __init__(
        self,
        library: Library,
        params: SamplingParams,
        *,
        vocabulary_size: int,
        window: int,
        position: int,
    ) -> None:
        """Builds the chain.

        Args:
            library: llama.cpp.
            params: every default settled.
            vocabulary_size: number of tokens.
            window: how far back penalties reach, in tokens: the whole context.
            position: how many tokens of the output were made before.
        """
        self._library = library
        self._chain: int = library.sampler_chain_init(True)
        self._repetition: int | None = None
        self._output_penalty: int | None = None
        self._bits = PositionalBits(params.seed or 0, position=position, size=4)
        self._add_bias(params, vocabulary_size)
        self._add_penalties(params, vocabulary_size, window)
        is_plain = not params.logit_bias and not self._repetition and not self._output_penalty
        self._is_argmax = params.temperature <= 0 and is_plain
        self._draw_at = self._add_choice(params)

    def observe_prompt(self, token_ids: Iterable[int]) -> None:
        """Lets the repetition penalty see the prompt."""
        if self._repetition is not None:
            for token_id in token_ids:
                self._library.sampler_accept(self._repetition, token_id)

    def observe_output(self, token_ids: Iterable[int]) -> None:
        """Lets the penalties see output that was made before."""
        for penalty in (self._repetition, self._output_penalty):
            if penalty is not None:
                for token_id in token_ids:
                    self._library.sampler_accept(penalty, token_id)

    def sample(self, context: int, place: int, row: Row) -> int:
        """Chooses a token and remembers it.

        Args:
            context: the `llama_context *`.
            place: of the row in its batch.
            row: the same row, as it is after masking.
        """
        if self._is_argmax:
            return int(row.argmax())
        if self._draw_at is not None:
            self._add_draw(self._draw_at)
        return int(self._library.sampler_sample(self._chain, context, place))

    def close(self) -> None:
        """Frees the chain with all its parts."""
        self._library.sampler_free(self._chain)

    def _add(self, sampler: int) -> int:
        self._library.sampler_chain_add(self._chain, sampler)
        return sampler

    def _add_bias(self, params: SamplingParams, vocabulary_size: int) -> None:
        if not params.logit_bias:
            return
        biases = (LogitBias * len(params.logit_bias))(
            *[
                LogitBias(token_id, -math.inf if bias <= BANNED_AT else bias)
                for token_id, bias in params.logit_bias.items()
            ]
        )
        self._add(
            self._library.sampler_init_logit_bias(
                vocabulary_size, len(biases), ctypes.cast(biases, ctypes.POINTER(LogitBias))
            )
        )

    def _add_penalties(self, params: SamplingParams, vocabulary_size: int, window: int) -> None:
        new = self._library.sampler_init_penalties
        # Two samplers, because they look at different tokens: the first also sees the prompt.
        if params.repetition_penalty != 1:
            penalty = new(vocabulary_size, window, params.repetition_penalty, 0.0, 0.0)
            self._repetition = self._add(penalty)
        if params.frequency_penalty or params.presence_penalty:
            penalty = new(
                vocabulary_size, window, 1.0, params.frequency_penalty, params.presence_penalty
            )
            self._output_penalty = self._add(penalty)

    def _add_draw(self, place: int) -> None:
        """Puts the draw of this position in the place of the last one, at the chain's end.

        How often one generator is asked depends on what the steps before it leave over; where it
        stands behind n tokens could not be told.
        """
        library = self._library
        if library.sampler_chain_n(self._chain) > place:
            library.sampler_free(library.sampler_chain_remove(self._chain, place))
        self._add(library.sampler_init_dist(min(self._bits.draw(), _LAST_SEED)))

    def _add_choice(self, params: SamplingParams) -> int | None:
        """Adds what chooses; returns the place of the draw where it is to be made anew."""
        library = self._library
        if params.temperature <= 0:
            self._add(library.sampler_init_greedy())
            return None
        if params.top_k > 0:
            self._add(library.sampler_init_top_k(params.top_k))
        if params.typical_p < 1:
            self._add(library.sampler_init_typical(params.typical_p, _MIN_KEEP))
        if params.top_p < 1:
            self._add(library.sampler_init_top_p(params.top_p, _MIN_KEEP))
        if params.min_p > 0:
            self._add(library.sampler_init_min_p(params.min_p, _MIN_KEEP))
        if params.temperature != 1:
            self._add(library.sampler_init_temp(params.temperature))
        if params.seed is None:
            self._add(library.sampler_init_dist(min(secrets.randbits(32), _LAST_SEED)))
            return None
        return int(library.sampler_chain_n(self._chain))


def is_sound(row: Row) -> bool:
    """False where a row holds NaN or nothing but infinities: broken weights."""
    return math.isfinite(row.max())
