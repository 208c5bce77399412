"""How the prompt tokens of one step are shared out. Pure."""

from __future__ import annotations

from collections.abc import Mapping


def shares(unread: Mapping[int, int], *, budget: int) -> dict[int, int]:
    """Divides a step's budget of tokens among prompts.

    1. Prompts are served from the shortest to the longest.
    2. Each gets an equal share of what is left among those not yet served, at least one token.
    3. None gets more than it has; what it leaves is shared by the longer ones.
    4. Once the budget is used up, the rest gets nothing in this step.

    A long prompt therefore neither starves short ones nor is starved by them.

    Args:
        unread: key to tokens that could be read now.
        budget: tokens in all.

    Returns: key to tokens to read, at least one each, without those that get none.
    """
    granted: dict[int, int] = {}
    left = budget
    # The shortest first, so that what it leaves is known when the longer ones are served.
    waiting = sorted((count, key) for key, count in unread.items() if count > 0)
    for served, (count, key) in enumerate(waiting):
        share = min(count, max(1, left // (len(waiting) - served)), left)
        if share > 0:
            granted[key] = share
            left -= share
    return granted
