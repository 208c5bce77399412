"""What is counted of requests at their end, added up for all that came out alike.

Requests end by the thousand a second, and nearly all of them like the ones before: to count each
one by itself in every place where something is counted would be a tenth of what it costs.
"""

from __future__ import annotations

from typing import Final

import msgspec

from services.backplane.errors import Reason
from services.gateway.limits.usage import Used

# Requests for models that do not exist must not make series of their own.
UNKNOWN_MODEL: Final = "unknown"


class RequestOutcome(msgspec.Struct):
    """Requests that came out alike. Times in seconds, of those that came to that.

    Attributes:
        dialect: name of the dialect or look-up.
        status: HTTP status; 499 where the client has left.
        reason: why they failed; None where they did not.
        model: the model that served them.
        principal: whose key they came with; empty for nobody's.
        neuron: which ran them; empty for none.
        instance_id: where they ran.
        is_named: they named a model.
        has_failed: they ended with an error.
        requests: how many they are.
        prompt_tokens: of choices that came to their end, as the other tokens.
        broken_prompt_tokens: of what did not come to its end, and of embeddings; likewise
            `broken_cached_tokens`, `broken_completion_tokens`.
        unfinished: choices that did not come to their end.
        admitted_prompt_tokens: of each request's prompt, once, whatever became of it.
        admitted_cached_tokens: of these, those that came from a cache.
        seconds: from a request's head to the end of its answer.
        decoded: of each choice, its tokens behind the first one, and how long they took.
        finish_reasons: of each choice that came to its end, the words of the log.
        lengths: of each of these, the tokens of its prompt and of its answer.
    """

    dialect: str
    status: int
    reason: Reason | None
    model: str = UNKNOWN_MODEL
    principal: str = ""
    neuron: str = ""
    instance_id: str = ""
    is_named: bool = False
    has_failed: bool = False
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    broken_prompt_tokens: int = 0
    broken_cached_tokens: int = 0
    broken_completion_tokens: int = 0
    unfinished: int = 0
    admitted_prompt_tokens: int = 0
    admitted_cached_tokens: int = 0
    seconds: list[float] = []
    first_token_seconds: list[float] = []
    first_visible_seconds: list[float] = []
    queue_seconds: list[float] = []
    decoded: list[tuple[int, float]] = []
    finish_reasons: list[str] = []
    lengths: list[tuple[int, int]] = []

    @property
    def used(self) -> Used:
        """Tokens of all prompts and answers, also of those that did not come to their end."""
        return Used(
            self.prompt_tokens + self.broken_prompt_tokens,
            self.cached_tokens + self.broken_cached_tokens,
            self.completion_tokens + self.broken_completion_tokens,
            self.reasoning_tokens,
        )
