"""Which of the models found on disks are one: a file is one model, by however many names.

Only names that nobody has configured are taken together, with each other or with the catalogue's
entry for the same file. Pure, and remembered until a disk or the catalogue changes.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from services.registry.catalogue.catalogue import Catalogue
from services.registry.catalogue.profile import LoadTerms, Profile
from services.registry.fleet.members import Fleet
from services.registry.fleet.records import StoredModel

_HUB: Final = "hf:"


@dataclasses.dataclass(frozen=True, slots=True)
class _Meaning:
    """What a name means on one disk: a model of another name, of files of this size."""

    model: str
    size_bytes: int


class ModelNames:
    """The other names of models, by what lies on the disks of the fleet.

    1. Where names on a disk have one file, the longest of them is the model's own
       (`m:Q4_K_M`), and the others (`m`) stand for it.
    2. Where an entry of the catalogue loads that file as it would be loaded by its name alone, the
       entry is the model, and all names of the file stand for it.
    3. A name that means one thing here and another there (`m` is the largest quantisation that a
       host holds) stands for the largest of them in the whole fleet. One that is some disk's only
       name for a file stays a model of its own.
    4. So does a name by which an instance is loaded, for as long as it is.
    """

    def __init__(self) -> None:
        self._revision = 0
        self._disks: dict[str, int] = {}
        self._catalogue: Catalogue | None = None
        self._entries: Sequence[Profile] = ()
        self._meanings: dict[str, dict[str, _Meaning]] = {}
        self._own: dict[str, str] = {}
        self._others: dict[str, list[str]] = {}

    def own_name(self, name: str, fleet: Fleet, catalogue: Catalogue) -> str:
        """The model's own name, by any name that is in no catalogue; most names are their own."""
        self._refresh(fleet, catalogue)
        own = self._own.get(name, name)
        return name if own != name and fleet.has_instances(name) else own

    def others(self, model: str, fleet: Fleet, catalogue: Catalogue) -> list[str]:
        """The other names of a model that its files give it, in order."""
        self._refresh(fleet, catalogue)
        return [name for name in self._others.get(model, ()) if not fleet.has_instances(name)]

    def _refresh(self, fleet: Fleet, catalogue: Catalogue) -> None:
        if catalogue is self._catalogue and fleet.disk_revision == self._revision:
            return
        self._revision = fleet.disk_revision
        if catalogue is not self._catalogue:
            self._catalogue = catalogue
            self._entries = [one for one in catalogue.profiles.values() if _is_plain(one.terms)]
            self._disks.clear()
            self._meanings.clear()
        for neuron in [one for one in self._disks if one not in fleet.disks]:
            del self._disks[neuron]
            self._forget(neuron)
        for neuron, at in fleet.disks.items():
            if self._disks.get(neuron) != at:
                self._disks[neuron] = at
                self._forget(neuron)
                self._learn(neuron, fleet, catalogue)
        self._own = {
            name: max(places.values(), key=lambda one: (one.size_bytes, one.model)).model
            for name, places in self._meanings.items()
            if len(places) == len(fleet.stored(name))
        }
        self._others = {}
        for name in sorted(self._own):
            self._others.setdefault(self._own[name], []).append(name)

    def _learn(self, neuron: str, fleet: Fleet, catalogue: Catalogue) -> None:
        stored = fleet.members[neuron].report.stored
        for name, meaning in _meanings(stored, self._entries).items():
            if name not in catalogue.profiles and name not in catalogue.aliases:
                self._meanings.setdefault(name, {})[neuron] = meaning

    def _forget(self, neuron: str) -> None:
        for name in list(self._meanings):
            self._meanings[name].pop(neuron, None)
            if not self._meanings[name]:
                del self._meanings[name]


def _is_plain(terms: LoadTerms) -> bool:
    """Whether an entry says nothing of how its files are loaded, but where they are."""
    said = dataclasses.replace(terms, source="", quant="", sha256="", max_sequences=0)
    return said == LoadTerms()


def _meanings(stored: Iterable[StoredModel], entries: Sequence[Profile]) -> Mapping[str, _Meaning]:
    """What the names on one disk mean that are not the own name of their file's model."""
    files: dict[str, list[StoredModel]] = {}
    for one in stored:
        if one.source:
            files.setdefault(one.source, []).append(one)
    entry_of: dict[str, str] = {}
    for entry in entries:
        source = _file_of(entry, files)
        if source is not None:
            entry_of.setdefault(source, entry.model)
    found: dict[str, _Meaning] = {}
    for source, named in files.items():
        longest = max(named, key=lambda one: (len(one.model), one.model)).model
        own = entry_of.get(source, longest)
        for one in named:
            if one.model != own:
                found[one.model] = _Meaning(own, one.size_bytes)
    return found


def _file_of(entry: Profile, files: Mapping[str, Sequence[StoredModel]]) -> str | None:
    """The file on one disk that an entry loads; None where it lies elsewhere, or cannot be told."""
    terms = entry.terms
    if terms.source in files and not terms.quant:
        return terms.source
    if not terms.source:
        wanted = f"{entry.model}:{terms.quant.upper()}" if terms.quant else entry.model
        names = {one.model: source for source, named in files.items() for one in named}
        return names.get(wanted)
    where, _, glob = terms.source.removeprefix(_HUB).partition("#")[0].partition("@")
    revision, _, glob = glob.partition("/")
    if not terms.source.startswith(_HUB) or not revision:
        return None
    origin = f"{_HUB}{where}@{revision}"
    fetched = [
        source
        for source, named in files.items()
        if named[0].origin == origin and _is_chosen(source, revision, glob, terms.quant)
    ]
    return fetched[0] if len(fetched) == 1 else None


def _is_chosen(source: str, revision: str, glob: str, quant: str) -> bool:
    """Whether an entry's pattern and quantisation can mean a file of its repository."""
    inside = source.partition(f"@{revision}/")[2]
    is_named = not glob or inside == glob or fnmatch.fnmatchcase(inside, glob)
    return is_named and quant.lower() in inside.lower()
