"""Pages of listings."""

from __future__ import annotations

from services.gateway.dialects.common.json_body import bad


def page_limit(text: str | None, *, default: int, most: int) -> int:
    """The `limit` of a query: how many entries a page may have.

    Args:
        text: as the client sent it; None: it sent none.
        default: where it sent none.
        most: the largest that is allowed.

    Raises:
        FleetError: BAD_REQUEST for what is no number from 1 to `most`.
    """
    if text is None:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise bad("limit", f"must be a number from 1 to {most}.")
    return int(text)
