"""Which keys and groups have changed since a revision: what watchers are told."""

from __future__ import annotations

from typing import Final

# Those that are gone are remembered so long that who was away hears of them; beyond, watchers are
# told everything anew.
_MOST_REMEMBERED: Final = 4096


class Revisions:
    """Counts changes by name.

    Attributes:
        revision: of the newest change.
    """

    def __init__(self) -> None:
        self.revision = 1
        self._changed: dict[str, int] = {}
        self._known_from = self.revision

    def mark(self, name: str) -> None:
        """Notes that something by this name has changed, or is gone."""
        self.revision += 1
        self._changed.pop(name, None)
        self._changed[name] = self.revision
        while len(self._changed) > _MOST_REMEMBERED:
            oldest = next(iter(self._changed))
            self._known_from = self._changed.pop(oldest)

    def since(self, revision: int) -> list[str] | None:
        """Names of what has changed behind a revision; None where that is not known any more."""
        if not self._known_from <= revision <= self.revision:
            return None
        found: list[str] = []
        for name, changed in reversed(self._changed.items()):
            if changed <= revision:
                break
            found.append(name)
        return found
