"""The limits of one key, as settings and the store have them."""

from __future__ import annotations

from typing import Annotated

import msgspec

Amount = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=2**40)]


class KeyLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`limits` of `[[auth.keys]]`: how much its principal may ask for. Unset: no limit; 0: nothing.

    Attributes:
        requests_per_minute: generations, counts of tokens and lists of texts to embed; each of the
            `n` answers to a request is one.
        tokens_per_minute: of prompts and completions together, cached ones too.
        concurrent_streams: generations at one time, streamed or not.
        max_context_tokens: longest prompt plus completion; a longer prompt is refused.
        max_output_tokens: longest completion; one that asks for more is cut there.
        tokens_per_day: budget, from midnight UTC on.
        tokens_per_month: likewise, from the first of the month on.
        gpu_seconds_per_day: budget of the time that devices work for the principal, from midnight
            UTC on: prompts, answers, loads and unloads that its requests cause.
        gpu_seconds_per_month: likewise, from the first of the month on.
    """

    requests_per_minute: Amount | None = None
    tokens_per_minute: Amount | None = None
    concurrent_streams: Amount | None = None
    max_context_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)] | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)] | None = None
    tokens_per_day: Amount | None = None
    tokens_per_month: Amount | None = None
    gpu_seconds_per_day: Seconds | None = None
    gpu_seconds_per_month: Seconds | None = None
