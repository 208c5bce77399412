"""Sampling parameters in the library's terms, and a source of chance that can be resumed. Pure.

The library's own defaults are not neutral (temperature 0.8, top-k 50, top-p 0.8, repetition penalty
1.025), so every field is set. What it gets wrong is left neutral there and done by `logit_rules`:
frequency and presence penalties (it counts the prompt too) and the bias (it comes too late).

Source: ExLlamaV2Sampler.Settings in exllamav2/generator/sampler.py (0.3.2).
"""

from __future__ import annotations

from typing import Any, Final

from services.neuron.engine_api.task import SamplingParams
from services.neuron.engines.common.sampling import PositionalBits

GREEDY_BELOW: Final = 0.01
"""The extension samples greedily below this temperature."""

TOP_P_CANDIDATES: Final = 1000
"""Where only top-p truncates: without a bound it sorts the whole vocabulary (25 ms per token at
128k tokens, measured); what lies behind the thousandth token has no weight in practice."""


def is_greedy(params: SamplingParams) -> bool:
    """The settings always choose the likeliest token, and change no row of logits before."""
    return params.temperature < GREEDY_BELOW and params.repetition_penalty == 1


def settings(params: SamplingParams) -> dict[str, Any]:
    """Every field of `ExLlamaV2Sampler.Settings` for one request."""
    greedy = params.temperature < GREEDY_BELOW
    truncates_by_p = 0 < params.top_p < 1
    top_k = 1 if greedy else params.top_k
    if truncates_by_p and not top_k:
        top_k = TOP_P_CANDIDATES
    return {
        "temperature": 1.0 if greedy else params.temperature,
        "top_k": top_k,
        "top_p": params.top_p if truncates_by_p and not greedy else 0.0,
        "min_p": 0.0 if greedy else params.min_p,
        "typical": params.typical_p if 0 < params.typical_p < 1 and not greedy else 0.0,
        "token_repetition_penalty": params.repetition_penalty,
        "token_repetition_range": -1,
        "token_repetition_decay": 0,
        "token_frequency_penalty": 0.0,
        "token_presence_penalty": 0.0,
        "smoothing_factor": 0.0,
        "min_temp": 0.0,
        "max_temp": 0.0,
        "temp_exponent": 1.0,
        "top_a": 0.0,
        "tfs": 0.0,
        "skew": 0.0,
        "temperature_last": False,
        "mirostat": False,
        "mirostat_tau": 1.5,
        "mirostat_eta": 0.1,
        "mirostat_mu": None,
        "token_bias": None,
        "cfg_scale": None,
        "post_sampling_hooks": [],
        "dry_multiplier": 0.0,
        "dry_allowed_length": 2,
        "dry_base": 1.75,
        "dry_sequence_breakers": None,
        "dry_range": 0,
        "dry_max_ngram": 20,
        "xtc_probability": 0.0,
        "xtc_threshold": 0.1,
        "xtc_ignore_tokens": None,
    }


class PositionalRandom:
    """Chance that depends on the seed and the position in the output alone.

    Stands in for `random.Random`, of which the library calls `random` only, once per sampled token.
    """

    def __init__(self, seed: int, *, position: int) -> None:
        """Starts at a position.

        Args:
            seed: of the request; any integer.
            position: how many tokens were drawn before.
        """
        self._bits = PositionalBits(seed, position=position, size=8)

    def random(self) -> float:
        """The next number in [0, 1)."""
        return float(self._bits.draw() >> 11) / (1 << 53)
