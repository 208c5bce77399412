"""Log probabilities in chunks, as the canonical ones."""

from __future__ import annotations

from collections.abc import Sequence

from cortex.v1 import generation_pb2 as generation
from services.gateway.transports.upstream.chunks import Logprobs


def log_probabilities(told: Logprobs | None) -> Sequence[generation.TokenLogprob]:
    """Those of one chunk, of a chat or of a completion; none: ()."""
    if told is None:
        return ()
    if told.content is not None:
        return [
            generation.TokenLogprob(
                text=_bytes(one.token, one.bytes),
                logprob=one.logprob,
                alternatives=[
                    generation.TokenLogprob(text=_bytes(o.token, o.bytes), logprob=o.logprob)
                    for o in one.top_logprobs or ()
                ],
            )
            for one in told.content
        ]
    rivals = told.top_logprobs or []
    return [
        generation.TokenLogprob(
            text=token.encode(),
            logprob=logprob or 0.0,
            alternatives=[
                generation.TokenLogprob(text=other.encode(), logprob=value)
                for other, value in ((rivals[place] if place < len(rivals) else None) or {}).items()
            ],
        )
        for place, (token, logprob) in enumerate(
            zip(told.tokens or (), told.token_logprobs or (), strict=False)
        )
    ]


def _bytes(token: str, told: Sequence[int] | None) -> bytes:
    """The token's own bytes, which may be a part of a character."""
    try:
        return bytes(told) if told is not None else token.encode()
    except (ValueError, UnicodeEncodeError):
        return token.encode("utf-8", "replace")
