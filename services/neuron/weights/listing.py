"""What there is to load below some folders, looked at again and again.

A file counts once it is whole by its own header, and is offered once it has stood still between two
looks: a copy under way may have its full length from the beginning. What has not changed since the
last look is not read again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.neuron.weights import inspect, safetensors, untrusted
from services.neuron.weights.inspect import Weights

_MOST_FILES: Final = 20_000
_DEEPEST: Final = 4
# What people put behind a model's name for how it is packed.
_LABEL: Final = re.compile(
    r"[-._](?P<label>(?:UD-)?(?:I?Q\d\w*|TQ\d\w*|BF16|F16|F32|FP16|MXFP4\w*|NVFP4\w*))$",
    re.IGNORECASE,
)

_Signature = tuple[tuple[int, int, int], ...]
Preference = Callable[[Sequence[Weights]], Weights]


@dataclasses.dataclass(frozen=True, slots=True)
class _Look:
    """What one look at a model's files found, and the state of the files then."""

    signature: _Signature
    weights: Weights | None
    problem: str = ""


class Listing:
    """All models below some folders by name.

    1. A GGUF file's model is called as the file without its ending and its part, a folder's as the
       folder.
    2. Several quantisations of one model in a folder of their own (`m-Q4_K_M.gguf`, `m-Q8_0.gguf`)
       are `m:Q4_K_M` and `m:Q8_0`; `m` is the one that is preferred here.
    3. Of two with one name the first counts, and the other is told as a problem.
    4. A link to a file, or two to one file, are further names of that file.
    """

    def __init__(
        self,
        folders: Sequence[pathlib.Path],
        preferred: Preference = lambda several: max(several, key=lambda one: one.bytes),
    ) -> None:
        """Has looked at nothing yet.

        Args:
            folders: in order of preference; those that are not there are empty.
            preferred: of several quantisations of one model.
        """
        self._folders = tuple(folders)
        self._preferred = preferred
        self._lock = threading.Lock()
        self._looks: dict[pathlib.Path, _Look] = {}
        self._offered: dict[pathlib.Path, _Signature] | None = None
        self._described: dict[str, tuple[Weights, model.StoredModel]] = {}

    def now(self) -> tuple[dict[str, Weights], list[str]]:
        """All models that are whole now, and a line for each file that cannot be loaded. Blocks."""
        with self._lock:
            return self._listed(still_only=False)

    def offered(self) -> tuple[dict[str, Weights], list[str]]:
        """As `now`, without files that were written to since the last call. Blocks."""
        with self._lock:
            return self._listed(still_only=True)

    def described(self, name: str, weights: Weights) -> model.StoredModel:
        """One model as the contract shows it; made once for the same weights. Blocks."""
        with self._lock:
            known = self._described.get(name)
        if known is not None and known[0] is weights:
            return known[1]
        made = inspect.described(name, weights)
        with self._lock:
            self._described[name] = weights, made
        return made

    def inspect(self, path: pathlib.Path, quant: str = "") -> Weights:
        """The weights at a path, as `inspect.inspect`, and read once while they stay as they are.

        Raises:
            FleetError: as `inspect.inspect`.
        """
        if path.suffix != ".gguf" or not path.is_file():
            return inspect.inspect(path, quant=quant)
        with self._lock:
            known = self._looks.get(path)
        signature = _signature(path)
        if known is not None and known.signature == signature and known.weights is not None:
            return known.weights
        weights = inspect.inspect(path, quant=quant)
        with self._lock:
            self._looks[path] = _Look(signature, weights)
        return weights

    def _listed(self, *, still_only: bool) -> tuple[dict[str, Weights], list[str]]:
        found: dict[str, Weights] = {}
        problems: list[str] = []
        looks: dict[pathlib.Path, _Look] = {}
        places: list[tuple[bool, list[tuple[pathlib.Path, Weights]]]] = []
        for folder in self._folders:
            for here, paths, lost in _candidates(folder):
                problems += map(untrusted.shown, lost)
                usable: list[tuple[pathlib.Path, Weights]] = []
                for path in paths:
                    if path in looks:
                        continue
                    look = looks[path] = self._look(path)
                    if look.problem:
                        problems.append(look.problem)
                    if look.weights is not None and (not still_only or self._is_still(path, look)):
                        usable.append((path, look.weights))
                places.append((here == folder, usable))
        files = _without_links([one for _, usable in places for one in usable])
        for is_root, usable in places:
            self._name([(p, files.get(p, w)) for p, w in usable], found, problems, is_root=is_root)
        if still_only:
            self._offered = {path: look.signature for path, look in looks.items()}
            self._looks = looks
            self._described = {k: v for k, v in self._described.items() if k in found}
        return found, problems

    def _look(self, path: pathlib.Path) -> _Look:
        signature = _signature(path)
        known = self._looks.get(path)
        if known is not None and known.signature == signature:
            return known
        try:
            weights = inspect.inspect(path)
            missing = "" if path.suffix == ".gguf" else safetensors.missing(path, weights.files)
            if missing:
                return _Look(
                    signature, None, f"{untrusted.shown(path.name)} is not whole: {missing}."
                )
            return _Look(signature, weights)
        except FleetError as error:
            return _Look(signature, None, untrusted.shown(error.message))

    def _is_still(self, path: pathlib.Path, look: _Look) -> bool:
        return self._offered is None or self._offered.get(path) == look.signature

    def _name(
        self,
        usable: Sequence[tuple[pathlib.Path, Weights]],
        found: dict[str, Weights],
        problems: list[str],
        *,
        is_root: bool,
    ) -> None:
        families: dict[str, dict[str, tuple[pathlib.Path, Weights]]] = {}
        for path, weights in usable:
            match = None if is_root else _LABEL.search(own_name(path))
            if match is not None:
                base = own_name(path)[: match.start()]
                families.setdefault(base, {}).setdefault(match["label"].upper(), (path, weights))
        named = {base: family for base, family in families.items() if len(family) > 1}
        within = {path for family in named.values() for path, _ in family.values()}
        for path, weights in usable:
            if path not in within:
                _put(own_name(path), weights, found, problems)
        for base, family in named.items():
            for label, (_, weights) in family.items():
                _put(f"{base}:{label}", weights, found, problems)
            _put(base, self._preferred([one for _, one in family.values()]), found, problems)


def own_name(path: pathlib.Path) -> str:
    """The name of a model by its file or folder."""
    return inspect.PART.sub("", path.stem) if path.suffix == ".gguf" else path.name


def _put(name: str, weights: Weights, found: dict[str, Weights], problems: list[str]) -> None:
    if untrusted.shown(name) != name:
        error = FleetError(Reason.MODEL_FILE_BAD, f"{name} cannot be a model's name.")
        problems.append(untrusted.shown(error.message))
    elif name and name not in found:
        found[name] = weights
    elif name and not _is_same(weights.path, found[name].path):
        told = f"{weights.path} cannot be asked for: {found[name].path} is called {name} too."
        problems.append(untrusted.shown(told))


def _is_same(one: pathlib.Path, other: pathlib.Path) -> bool:
    """One file or folder by two names, or gone by now."""
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return True


def _without_links(
    usable: Sequence[tuple[pathlib.Path, Weights]],
) -> dict[pathlib.Path, Weights]:
    """What the paths are that are links to one file: the file's own, where that is listed too."""
    if not any(path.is_symlink() for path, _ in usable):
        return {}
    targets = {path: path.resolve() for path, _ in usable}
    files: dict[pathlib.Path, Weights] = {}
    for path, weights in sorted(usable, key=lambda one: one[0].is_symlink()):
        files.setdefault(targets[path], weights)
    return {path: files[target] for path, target in targets.items()}


def _signature(path: pathlib.Path) -> _Signature:
    """Changes with whatever is done to a model's files; empty where they cannot be seen."""
    files = inspect.parts_of(path) if path.suffix == ".gguf" else sorted(path.glob("*"))
    made: list[tuple[int, int, int]] = []
    for file in files:
        with contextlib.suppress(OSError):
            facts = file.stat()
            made.append((facts.st_ino, facts.st_size, facts.st_mtime_ns))
    return tuple(made)


def _candidates(
    folder: pathlib.Path,
) -> Iterator[tuple[pathlib.Path, list[pathlib.Path], list[str]]]:
    """By folder: GGUF files, the folder itself where it is a model, lines on what is left out.

    Links are followed, hidden folders and those that were entered before are not.
    """
    seen = 0
    entered: set[tuple[int, int]] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        here = pathlib.Path(root)
        with contextlib.suppress(OSError):
            facts = here.stat()
            if (facts.st_dev, facts.st_ino) in entered:  # a link that leads back
                folders.clear()
                continue
            entered.add((facts.st_dev, facts.st_ino))
        if len(here.relative_to(folder).parts) >= _DEEPEST:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        seen += len(files)
        if seen > _MOST_FILES:
            return
        ggufs = [here / name for name in sorted(files) if inspect.is_model_file(name)]
        paths = inspect.first_parts(ggufs)
        if inspect.CONFIG in files and any(name.endswith(".safetensors") for name in files):
            paths.insert(0, here)
        yield here, paths, [*inspect.without_first(ggufs), *_misspelled(files)]


def _misspelled(names: Sequence[str]) -> Iterator[str]:
    for name in sorted(names):
        if name.lower().endswith(".gguf") and not name.endswith(".gguf"):
            yield f"{name} is left out: its name has to end in .gguf, in small letters."
