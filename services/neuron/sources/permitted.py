"""What a neuron loads from, whoever asks: its own settings decide."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Sequence
from typing import Final

from services.backplane.errors import FleetError, Reason
from services.neuron.settings import AllowedSources
from services.neuron.sources import checksum
from services.neuron.sources.catalogue_files import CatalogueFiles
from services.neuron.sources.hub_files import HubModel
from services.neuron.weights.confined import first_outside, is_inside
from services.neuron.weights.inspect import parts_of

_SETTING: Final = "[neuron.allowed]"


class PermittedSources:
    """Refuses the sources of loads and fetches that the neuron's own settings do not allow.

    Args:
        allowed: the settings; None allows everything.
        folders: below which `path:` may read besides.
        own: sources that the neuron's settings name themselves, which are allowed; one with a
            digest with that digest alone.
    """

    def __init__(
        self,
        allowed: AllowedSources | None,
        *,
        folders: Sequence[pathlib.Path] = (),
        own: Collection[str] = (),
    ) -> None:
        self._allowed = allowed
        self._own = dict(map(checksum.split, own))
        self._catalogues = CatalogueFiles(() if allowed is None else allowed.catalogues)
        more = () if allowed is None else allowed.folders
        self._folders = [*folders, *(pathlib.Path(each).expanduser() for each in more)]

    @property
    def folders(self) -> Sequence[pathlib.Path]:
        """Below which `path:` may read."""
        return self._folders

    def check(self, scheme: str, location: str, digest: str = "") -> pathlib.Path | None:
        """Checks one source. Blocks, as it may look at files.

        Args:
            scheme: that names the way: `path`, `hf`, `package`.
            location: what stands behind it.
            digest: that the files will be held to; empty: none.

        Returns: a path in whose place others may be put: its files are to be reached by the path
            that is returned, without a link in it, and to be looked at by `check_files` once they
            were opened. None: it may lie anywhere.

        Raises:
            FleetError: SOURCE_FORBIDDEN; it tells nothing of what lies there.
        """
        allowed = self._allowed
        if allowed is None or self._is_named(f"{scheme}:{location}", digest):
            return None
        if scheme not in allowed.sources:
            raise _forbidden(f"nothing from `{scheme}:`", "sources", scheme)
        if scheme == "path":
            return self._checked_path(location)
        if scheme == "hf":
            _check_owner(allowed, location)
        return None

    def check_files(self, path: pathlib.Path) -> None:
        """Checks a file that was opened, or all below a folder: they may be others now. Blocks.

        Of a model in several files all are checked.

        Raises:
            FleetError: SOURCE_FORBIDDEN.
        """
        if first_outside(parts_of(path), self._folders) is not None:
            raise _outside(str(path))

    def _is_named(self, source: str, digest: str) -> bool:
        known = (self._own.get(source), self._catalogues.digest_of(source))
        return any(each is not None and each.lower() in ("", digest.lower()) for each in known)

    def _checked_path(self, location: str) -> pathlib.Path:
        try:
            # links are followed first, and once: one inside a folder may lead out of it
            asked = pathlib.Path(location).expanduser()
            path = asked.resolve()
        except (OSError, ValueError, RuntimeError):  # too long, with NUL, in a circle
            raise _outside(location) from None
        if not is_inside(path, self._folders):
            raise _outside(location)
        if not asked.name or parts_of(asked) == [asked]:
            return path
        # The other parts of a model are found by the name, which may be a link of a hub's cache to
        # a file without one: its folder alone is followed. All parts are looked at again later.
        self.check_files(asked)
        return asked.parent.resolve() / asked.name


def _check_owner(allowed: AllowedSources, location: str) -> None:
    if allowed.owners:
        owner = HubModel.parse(location).owner
        if owner.lower() not in {each.lower() for each in allowed.owners}:
            raise _forbidden(f"nothing of {owner}", "owners", owner)


def _outside(location: str) -> FleetError:
    return _forbidden("no files outside its folders", "folders", location)


def _forbidden(what: str, key: str, value: str) -> FleetError:
    message = f"This neuron loads {what}: {key} of {_SETTING} in its cortex.toml lacks {value!r}."
    return FleetError(Reason.SOURCE_FORBIDDEN, message, field="spec.source")
