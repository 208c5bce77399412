"""Reading settings again while a service runs: what it can take in, and what needs a restart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import structlog

from services.backplane.address import BadAddressError
from services.backplane.settings import Document, SettingsError

log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True)
class Reloaded:
    """The result of a reload: which settings were taken in, and which need a restart.

    Attributes:
        changed: keys whose new values hold now.
        needs_restart: keys whose new values do not yet.
        refused: why not all was taken in, in words; empty where it was.
    """

    changed: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    refused: str = ""


class SettingsReload:
    """One service's settings; called to read them again, for `lifecycle.reloading`.

    Settings with a mistake are refused as a whole: the service goes on as it was.
    """

    def __init__(
        self,
        document: Document,
        *,
        sections: Collection[str],
        check: Callable[[Document], object],
        live: Mapping[str, Callable[[Document], None]],
        always: Sequence[Callable[[], object]] = (),
    ) -> None:
        """Reads nothing yet.

        Args:
            document: what the service runs with.
            sections: those that it reads.
            check: raises `SettingsError` for what the service cannot run with.
            live: takes new values of a section, or of a dotted key, into the running service.
            always: takes in other files, such as the catalogue, changed settings or not; may raise
                `SettingsError`.
        """
        self._document = document
        self._sections = sections
        self._check = check
        self._live = live
        self._always = always
        self._running = self._keys(document)

    def __call__(self) -> Reloaded:
        """Reads again and takes in what can be; the log says what was, and what needs a restart."""
        reread = self._document.reread
        try:
            document = self._document if reread is None else reread()
            self._check(document)
        except (SettingsError, BadAddressError) as error:
            told = f"{error}. Nothing was changed."
            log.warning("settings.refused", detail=told)
            return Reloaded(refused=told)
        fresh = self._keys(document)
        changed = sorted(k for k in {*self._running, *fresh} if self._differs(k, fresh))
        taken = [key for key in changed if self._part_of(key) is not None]
        for part in dict.fromkeys(map(self._part_of, taken)):
            if part is not None:
                self._live[part](document)
        for key in taken:
            self._running[key] = fresh.get(key)
        refused = ""
        for take in self._always:
            try:
                take()
            except SettingsError as error:
                refused = f"{error}. The rest was taken in."
                log.warning("settings.refused", detail=refused)
        left = [key for key in changed if key not in taken]
        log.info("settings.reloaded", changed=taken, needs_restart=left)
        return Reloaded(tuple(taken), tuple(left), refused)

    def _differs(self, key: str, fresh: Mapping[str, Any]) -> bool:
        return self._running.get(key) != fresh.get(key)

    def _part_of(self, key: str) -> str | None:
        return next((p for p in self._live if key == p or key.startswith(f"{p}.")), None)

    def _keys(self, document: Document) -> dict[str, Any]:
        """Values by `section.key`; a section that is a list is one value."""
        found: dict[str, Any] = {}
        for section in self._sections:
            table: Any = document.tables.get(section, {})
            if isinstance(table, dict):
                found |= {f"{section}.{key}": value for key, value in table.items()}
            else:
                found[section] = table
        return found
