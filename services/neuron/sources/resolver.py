"""Where weights come from: `path:`, `package:`, `hf:`.

A source is one class that turns the text behind its scheme into a path on this disk, reporting
bytes while it does. `Sources` chooses it, then checks what came.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.model import Confined
from services.neuron.sources import checksum
from services.neuron.sources.neighbour import Neighbour
from services.neuron.sources.permitted import PermittedSources
from services.neuron.sources.source import Foreseeing, Mending, OnBytes, WeightSource
from services.neuron.weights import untrusted
from services.neuron.weights.inspect import Weights, parts_of
from services.neuron.weights.listing import Listing, Preference, own_name

_EVERYTHING: Final = PermittedSources(None)


class Sources:
    """Turns what a load asks for into weights on this disk."""

    def __init__(
        self,
        schemes: Mapping[str, WeightSource],
        *,
        named: Mapping[str, str],
        folders: tuple[pathlib.Path, ...],
        permitted: PermittedSources = _EVERYTHING,
        cache_tokens: Callable[[Weights], int] = lambda _: 0,
        gpu_layers: Callable[[Weights], model.GpuLayers | None] = lambda _: None,
        preferred: Preference | None = None,
        origin_of: Callable[[pathlib.Path], str] = lambda _: "",
        resident: Callable[[Weights], int | None] = lambda _: None,
    ) -> None:
        """Chooses among sources.

        Args:
            schemes: source by scheme.
            named: model name to source, from the settings.
            folders: where files are found by name.
            permitted: what may be loaded.
            cache_tokens: that a load of weights takes where nothing else is asked for.
            gpu_layers: that a load of weights would put on GPUs here; None where none is divided.
            preferred: of several quantisations of one model; None takes the largest.
            origin_of: where the neuron itself has fetched a path from; empty where it has not.
            resident: bytes of weights that are in the page cache; None: not known. May block.
        """
        self._listing = Listing(folders) if preferred is None else Listing(folders, preferred)
        self._origin_of = origin_of
        self._resident = resident
        self._schemes = schemes
        self._named = named
        self._permitted = permitted
        self._folders = folders
        self._cache_tokens = cache_tokens
        self._gpu_layers = gpu_layers

    async def resolve(
        self, spec: model.LoadSpec, on_bytes: OnBytes, neighbours: Sequence[Neighbour] = ()
    ) -> Weights:
        """The weights of a load, fetched where they are not here yet.

        Args:
            spec: of the load.
            on_bytes: told how far a download is.
            neighbours: who is asked before the hub.

        Raises:
            FleetError: the source, the disk or the file itself cannot be used.
        """
        text = spec.source or self._named.get(spec.model, "")
        if text:
            found = await self.locate(text, spec.quant, on_bytes, neighbours)
        else:
            found = await asyncio.to_thread(self._by_name, spec.model, spec.quant)
        if spec.sha256:
            await _check(found, spec.sha256, on_bytes)
        return found

    async def locate(
        self, text: str, quant: str, on_bytes: OnBytes, neighbours: Sequence[Neighbour] = ()
    ) -> Weights:
        """The weights of one source text, fetched where they are not here yet, or are damaged."""
        _, expected = checksum.split(text)
        path = await self._brought(text, quant, on_bytes, neighbours)
        try:
            found = await asyncio.to_thread(self._inspected, text, path, quant)
        except FleetError as error:
            if error.reason is not Reason.MODEL_FILE_BAD or not await self.discard_damaged(
                text, quant
            ):
                raise
            path = await self._brought(text, quant, on_bytes, neighbours)
            found = await asyncio.to_thread(self._inspected, text, path, quant)
        if expected:
            await _check(found, expected, on_bytes)
        return found

    async def discard_damaged(self, text: str, quant: str) -> bool:
        """Whether damaged files were removed, so that a fetch brings them anew.

        By the digests of their source, where it tells any; reads all of them.
        """
        source, location = await asyncio.to_thread(self._parse, text)
        return isinstance(source, Mending) and await source.discard_damaged(location, quant) > 0

    async def path(
        self, text: str, quant: str, on_bytes: OnBytes, neighbours: Sequence[Neighbour] = ()
    ) -> pathlib.Path:
        """Where the files of one source text lie, fetched where they are not here yet.

        What they hold is not looked at: adapters are no models.
        """
        _, expected = checksum.split(text)
        path = await self._brought(text, quant, on_bytes, neighbours)
        await asyncio.to_thread(self._check_files, text, path)
        if expected:
            files = await asyncio.to_thread(checksum.files_of, path)
            await checksum.check(path, files, expected, on_bytes)
        return path

    async def _brought(
        self, text: str, quant: str, on_bytes: OnBytes, neighbours: Sequence[Neighbour]
    ) -> pathlib.Path:
        source, location = await asyncio.to_thread(self._parse, text)
        path = await asyncio.to_thread(source.find, location, quant)
        return path or await source.fetch(location, quant, on_bytes, neighbours)

    def find(self, spec: model.LoadSpec) -> Weights | None:
        """The weights of a load if they are on this disk. Blocks.

        Raises:
            FleetError: they are here and cannot be used.
        """
        text = spec.source or self._named.get(spec.model, "")
        if not text:
            return self._by_name(spec.model, spec.quant)
        source, location = self._parse(text)
        path = source.find(location, spec.quant)
        return None if path is None else self._inspected(text, path, spec.quant)

    def confined(self, spec: model.LoadSpec) -> Confined:
        """Which files of a load have to lie below which folders once they were opened. Blocks.

        Raises:
            FleetError: as `resolve`.
        """
        texts = [spec.source or self._named.get(spec.model, ""), spec.draft_source, *spec.adapters]
        first = [path for text in texts if text and (path := self._confined(text))]
        paths = [str(part) for path in first for part in parts_of(path)]
        return Confined(tuple(paths), tuple(map(str, self._permitted.folders)) if paths else ())

    def _confined(self, text: str) -> pathlib.Path | None:
        where, digest = checksum.split(text)
        scheme, _, location = where.partition(":")
        return self._permitted.check(scheme, location, digest)

    def _inspected(self, text: str, path: pathlib.Path, quant: str) -> Weights:
        found = self._listing.inspect(path, quant)
        self._check_files(text, path)
        return found

    def _check_files(self, text: str, path: pathlib.Path) -> None:
        """Looks again, behind the opening of files, where they may have been replaced."""
        if self._confined(text) is not None:
            self._permitted.check_files(path)

    async def foresee(self, spec: model.LoadSpec) -> Weights:
        """The weights of a load: those on this disk, or what their source says of them.

        Raises:
            FleetError: NOT_FOUND, the source cannot tell before the download; else as `resolve`.
        """
        text = spec.source or self._named.get(spec.model, "")
        try:
            found = await asyncio.to_thread(self.find, spec)
        except FleetError as error:
            is_bad = error.reason is Reason.MODEL_FILE_BAD
            if not (is_bad and text and await self.discard_damaged(text, spec.quant)):
                raise
            found = None
        if found is not None:
            return found
        source, location = await asyncio.to_thread(self._parse, text)
        if not isinstance(source, Foreseeing):
            raise FleetError(
                Reason.NOT_FOUND,
                "The weights are not on this disk; their size is not known before the download.",
                field="spec.source",
            )
        return await source.foresee(location, spec.quant)

    def stored(self, name: str) -> Weights | None:
        """The weights that lie below the folders under a name; None where none do. Blocks."""
        return self._listing.now()[0].get(name)

    def described(self, weights: Weights) -> model.StoredModel:
        """Weights as the listing has them, under the most exact of their names. Blocks."""
        names = [name for name, one in self._listing.now()[0].items() if one.path == weights.path]
        name = max(names, key=len, default=own_name(weights.path))
        return self._told(name, weights)

    def origin_of(self, path: pathlib.Path) -> str:
        """Where the neuron itself has fetched a path from; empty where somebody put it there."""
        return self._origin_of(path)

    def listing(self) -> tuple[list[model.StoredModel], list[str]]:
        """What could be loaded without a download, and what is broken. Blocks."""
        found, problems = self._listing.offered()
        for name, text in self._named.items():
            try:
                here = self.find(model.LoadSpec(model=name, source=text))
            except FleetError as error:
                problems.append(untrusted.shown(f"{name}: {error.message}"))
                continue
            if here is not None:
                found[name] = next((one for one in found.values() if _is_same(one, here)), here)
        return [self._told(name, one) for name, one in sorted(found.items())], problems

    def _told(self, name: str, weights: Weights) -> model.StoredModel:
        told = model.StoredModel()
        told.CopyFrom(self._listing.described(name, weights))
        told.default_cache_tokens = self._cache_tokens(weights)
        if (layers := self._gpu_layers(weights)) is not None:
            told.gpu_layers.CopyFrom(layers)
        told.origin = self._origin_of(weights.path)
        resident = self._resident(weights)
        if resident is not None:
            told.resident_bytes = resident
        return told

    def _by_name(self, name: str, quant: str) -> Weights:
        found, problems = self._listing.now()
        for known in (f"{name}:{quant.upper()}", name):
            if known in found:
                return found[known]
        for folder in self._folders:  # a folder with several files, one of which `quant` names
            # `Path.is_dir` raises for a name that is too long for any disk
            if not os.path.isdir(folder / name):  # noqa: PTH112
                continue
            inside = (folder / name).resolve()
            if folder.resolve() in inside.parents:
                return self._listing.inspect(inside, quant)
        near = "; ".join(problem for problem in problems if name and name in problem)
        raise FleetError(
            Reason.MODEL_UNKNOWN if not near else Reason.MODEL_FILE_BAD,
            near or f"There are no weights for {name!r} here, and no source was named.",
            field="spec.model",
        )

    def _parse(self, text: str) -> tuple[WeightSource, str]:
        where, digest = checksum.split(text)
        scheme, colon, location = where.partition(":")
        source = self._schemes.get(scheme) if colon else None
        if source is None or not location:
            known = ", ".join(f"{name}:" for name in self._schemes)
            raise FleetError(
                Reason.BAD_REQUEST,
                f"{text!r} is no source (known: {known}).",
                field="spec.source",
            )
        confined = self._permitted.check(scheme, location, digest)
        return source, location if confined is None else str(confined)


def _is_same(one: Weights, other: Weights) -> bool:
    """Whether both are one file or folder, by whatever path."""
    try:
        return one.path == other.path or one.path.samefile(other.path)
    except OSError:  # gone by now
        return False


async def _check(found: Weights, expected: str, on_bytes: OnBytes) -> None:
    """Checks a whole folder, or all parts of a file."""
    is_folder = await asyncio.to_thread(found.path.is_dir)
    files = await asyncio.to_thread(checksum.files_of, found.path) if is_folder else found.files
    await checksum.check(found.path, files, expected, on_bytes)
