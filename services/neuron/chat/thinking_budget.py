"""How long a model may think: what is put into its output when the time is over."""

from __future__ import annotations

import dataclasses

from services.neuron.chat.reasoning import ReasoningMarkers
from services.neuron.engine_api.task import Prompt, Segment


@dataclasses.dataclass(frozen=True, slots=True)
class Closing:
    """The text that ends a model's reasoning, and its tokens."""

    text: str
    token_ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class ThinkingBudget:
    """How many tokens one request's reasoning may have, and how it is ended then.

    Attributes:
        tokens: reasoning is closed after so many.
        closing: what closes it.
    """

    tokens: int
    closing: Closing


def closing_text(markers: ReasoningMarkers) -> str:
    """The text that ends reasoning, as models are trained to write it."""
    return f"\n{markers.closing}\n\n"


def closing_prompt(markers: ReasoningMarkers, control_tokens: dict[str, int]) -> Prompt:
    """The closing text as a prompt to be tokenised: its markers as control tokens."""
    is_control = markers.closing in control_tokens
    marker = Segment(markers.closing, control=is_control)
    return Prompt(segments=(Segment("\n"), marker, Segment("\n\n")))
