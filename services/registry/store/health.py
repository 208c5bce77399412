"""Whether the store can be used, told once for each change and not for each attempt."""

from __future__ import annotations

import structlog

log = structlog.get_logger()


class StoreHealth:
    """Whether the store works for one user of it; logs each change once."""

    def __init__(self) -> None:
        self._has_failed = False

    @property
    def is_well(self) -> bool:
        """Whether the last attempt succeeded; true before the first."""
        return not self._has_failed

    def failed(self, detail: str, **facts: object) -> None:
        """An attempt failed: logged where the one before had not."""
        if not self._has_failed:
            log.warning("store.failed", detail=detail, **facts)
        self._has_failed = True

    def worked(self) -> None:
        """The store did what it was asked: logged where it had failed before."""
        if self._has_failed:
            log.info("store.recovered")
        self._has_failed = False
