"""What as many valid requests are, for attacks that ask for many answers on few connections.

Beside all others it is a short answer on each connection that they have.
"""

from __future__ import annotations

from typing import Any, Final

# How many at once, and what each asks for.
VALID: Final[dict[str, tuple[int, dict[str, Any]]]] = {
    "n of 128, 20 alternatives each": (
        256,
        {"max_tokens": 30, "logprobs": True, "top_logprobs": 20},
    ),
    "HTTP/2: 100 streams without a window": (
        100,
        {"max_tokens": 4000, "ignore_eos": True, "stream": True},
    ),
    "80 connections of one principal": (80, {"max_tokens": 2000, "ignore_eos": True}),
}
