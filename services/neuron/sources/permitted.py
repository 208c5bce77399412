"""What a neuron loads from, whoever asks: its own settings decide."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from services.backplane.errors import FleetError, Reason
from services.neuron.settings import AllowedSources
from services.neuron.sources import checksum
from services.neuron.sources.catalogue_files import CatalogueFiles
from services.neuron.sources.hub_files import HubModel

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
        self._checks: Mapping[str, Callable[[AllowedSources, str], None]] = MappingProxyType(
            {"path": self._check_path, "hf": _check_owner}
        )

    def check(self, scheme: str, location: str, digest: str = "") -> None:
        """Checks one source. Blocks, as it may look at files.

        Args:
            scheme: that names the way: `path`, `hf`, `package`.
            location: what stands behind it.
            digest: that the files will be held to; empty: none.

        Raises:
            FleetError: SOURCE_FORBIDDEN; it tells nothing of what lies there.
        """
        allowed = self._allowed
        if allowed is None or self._is_named(f"{scheme}:{location}", digest):
            return
        if scheme not in allowed.sources:
            raise _forbidden(f"nothing from `{scheme}:`", "sources", scheme)
        check = self._checks.get(scheme)
        if check is not None:
            check(allowed, location)

    def _is_named(self, source: str, digest: str) -> bool:
        known = (self._own.get(source), self._catalogues.digest_of(source))
        return any(each is not None and each.lower() in ("", digest.lower()) for each in known)

    def _check_path(self, _: AllowedSources, location: str) -> None:
        try:
            # links are followed first: one inside a folder may lead out of it
            path = pathlib.Path(location).expanduser().resolve()
            is_inside = any(path.is_relative_to(each.resolve()) for each in self._folders)
        except (OSError, ValueError, RuntimeError):  # too long, with NUL, in a circle
            is_inside = False
        if not is_inside:
            raise _forbidden("no files outside its folders", "folders", location)


def _check_owner(allowed: AllowedSources, location: str) -> None:
    if allowed.owners:
        owner = HubModel.parse(location).owner
        if owner.lower() not in {each.lower() for each in allowed.owners}:
            raise _forbidden(f"nothing of {owner}", "owners", owner)


def _forbidden(what: str, key: str, value: str) -> FleetError:
    message = f"This neuron loads {what}: {key} of {_SETTING} in its cortex.toml lacks {value!r}."
    return FleetError(Reason.SOURCE_FORBIDDEN, message, field="spec.source")
