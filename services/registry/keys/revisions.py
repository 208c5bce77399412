"""Numbers the changes of keys and groups, so that a watcher gets only what is new to it."""

from __future__ import annotations

from typing import Final

# Those that are gone are remembered so long that who was away hears of them; beyond, watchers are
# told everything anew.
_MOST_REMEMBERED: Final = 4096


class Revisions:
    """The revision in which each key and group last changed.

    Attributes:
        revision: of the newest change.
    """

    def __init__(self) -> None:
        self.revision = 1
        self._changed: dict[str, int] = {}
        self._known_from = self.revision

    def mark(self, name: str) -> None:
        """Records that the key or group of this name has changed or was removed."""
        self.revision += 1
        self._changed.pop(name, None)
        self._changed[name] = self.revision
        while len(self._changed) > _MOST_REMEMBERED:
            oldest = next(iter(self._changed))
            self._known_from = self._changed.pop(oldest)

    def since(self, revision: int) -> list[str] | None:
        """Names that changed after a revision; None where the revision is too old to tell."""
        if not self._known_from <= revision <= self.revision:
            return None
        found: list[str] = []
        for name, changed in reversed(self._changed.items()):
            if changed <= revision:
                break
            found.append(name)
        return found
