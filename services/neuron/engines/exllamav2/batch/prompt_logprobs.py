"""Log probabilities of a prompt's own tokens: one pass without a cache, the head in pieces.

The generator never computes them: its prefill stops before the head. Reading a row takes the host
about a millisecond, so that a long prompt would hold up all streams: it is read a little per step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from services.neuron.engine_api.events import TokenLogprob
from services.neuron.engines.common.logprobs import LogprobReader
from services.neuron.engines.exllamav2.model.generators import GeneratorParts

_ROWS: Final = 16
"""Rows through the head at a time: the library's buffer for it is that long."""


class PromptLogprobs:
    """The prompt of one request, read bit by bit."""

    def __init__(
        self,
        parts: GeneratorParts,
        prompt: Sequence[int],
        *,
        top: int,
        piece: Callable[[int], bytes],
    ) -> None:
        """Reads nothing yet.

        Args:
            parts: of the model.
            prompt: at most `shape.input_tokens` ids, no pictures.
            top: how many alternatives to report.
            piece: a token's own bytes.
        """
        self._parts = parts
        self._prompt = prompt
        self._top = top
        self._piece = piece
        self._states: Any = None
        first = TokenLogprob(prompt[0], piece(prompt[0]), 0.0)
        self._entries = [first]

    @property
    def is_read(self) -> bool:
        """Every token has its entry."""
        return len(self._entries) == len(self._prompt)

    @property
    def entries(self) -> tuple[TokenLogprob, ...]:
        """One entry per prompt token read so far; the first token has 0, as nothing precedes it."""
        return tuple(self._entries)

    def advance(self, rows: int) -> None:
        """Reads at least so many tokens more, up to the end."""
        end = min(len(self._prompt), len(self._entries) + rows)
        while len(self._entries) < end:
            if self._states is None:
                self._states = last_states(self._parts, self._prompt)
            begin = len(self._entries) - 1
            for row in self._logits(begin, min(begin + _ROWS, len(self._prompt) - 1)):
                reader = LogprobReader(row, top=self._top, piece=self._piece)
                self._entries.append(reader.of(self._prompt[len(self._entries)]))
        if self.is_read:
            self._states = None

    def _logits(self, begin: int, end: int) -> Any:
        """(end - begin, vocabulary) float32 logits in host memory."""
        model, loras = self._parts.model, list(self._parts.loras) or None
        with self._parts.library.torch.inference_mode():
            logits = model.modules[model.head_layer_idx].forward(
                self._states[None, begin:end], loras=loras
            )
            cap = model.config.final_logit_softcapping
            if cap:
                logits = (logits.float() / cap).tanh() * cap
        return logits[0, :, : model.config.vocab_size].float().cpu().numpy()


def last_states(parts: GeneratorParts, token_ids: Sequence[int]) -> Any:
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
