"""Where weights come from: `path:`, `package:`, `hf:`.

A source is one class that turns the text behind its scheme into a path on this disk, reporting
bytes while it does. `Sources` chooses it, then checks what came.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import Callable, Mapping

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.neuron.sources import checksum
from services.neuron.sources.source import Foreseeing, OnBytes, WeightSource
from services.neuron.weights import distrust, inspect
from services.neuron.weights.inspect import Weights


class Sources:
    """Turns what a load asks for into weights on this disk."""

    def __init__(
        self,
        schemes: Mapping[str, WeightSource],
        *,
        named: Mapping[str, str],
        folders: tuple[pathlib.Path, ...],
        cache_tokens: Callable[[Weights], int] = lambda _: 0,
    ) -> None:
        """Chooses among sources.

        Args:
            schemes: source by scheme.
            named: model name to source, from the settings.
            folders: where files are found by name.
            cache_tokens: that a load of weights takes where nothing else is asked for.
        """
        self._schemes = schemes
        self._named = named
        self._folders = folders
        self._cache_tokens = cache_tokens

    async def resolve(self, spec: model.LoadSpec, on_bytes: OnBytes) -> Weights:
        """The weights of a load, fetched where they are not here yet.

        Raises:
            FleetError: the source, the disk or the file itself cannot be used.
        """
        text = spec.source or self._named.get(spec.model, "")
        if text:
            found = await self.locate(text, spec.quant, on_bytes)
        else:
            found = await asyncio.to_thread(self._by_name, spec.model, spec.quant)
        if spec.sha256:
            await _check(found, spec.sha256, on_bytes)
        return found

    async def locate(self, text: str, quant: str, on_bytes: OnBytes) -> Weights:
        """The weights of one source text, fetched where they are not here yet."""
        where, expected = checksum.split(text)
        path = await self.path(where, quant, on_bytes)
        found = await asyncio.to_thread(inspect.inspect, path, quant=quant)
        if expected:
            await _check(found, expected, on_bytes)
        return found

    async def path(self, text: str, quant: str, on_bytes: OnBytes) -> pathlib.Path:
        """Where the files of one source text lie, fetched where they are not here yet.

        What they hold is not looked at: adapters are no models.
        """
        where, expected = checksum.split(text)
        source, location = self._parse(where)
        path = await asyncio.to_thread(source.find, location, quant)
        path = path or await source.fetch(location, quant, on_bytes)
        if expected:
            files = await asyncio.to_thread(checksum.files_of, path)
            await checksum.check(path, files, expected, on_bytes)
        return path

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
        return None if path is None else inspect.inspect(path, quant=spec.quant)

    async def foresee(self, spec: model.LoadSpec) -> Weights:
        """The weights of a load: those on this disk, or what their source says of them.

        Raises:
            FleetError: NOT_FOUND, the source cannot tell before the download; else as `resolve`.
        """
        found = await asyncio.to_thread(self.find, spec)
        if found is not None:
            return found
        source, location = self._parse(spec.source or self._named.get(spec.model, ""))
        if not isinstance(source, Foreseeing):
            raise FleetError(
                Reason.NOT_FOUND,
                "The weights are not on this disk; their size is not known before the download.",
                field="spec.source",
            )
        return await source.foresee(location, spec.quant)

    def listing(self) -> tuple[list[model.StoredModel], list[str]]:
        """What could be loaded without a download, and what is broken. Blocks."""
        found, problems = inspect.listing(self._folders)
        for name, text in self._named.items():
            try:
                here = self.find(model.LoadSpec(model=name, source=text))
            except FleetError as error:
                problems.append(distrust.shown(f"{name}: {error.message}"))
                continue
            if here is not None:
                found[name] = here
        listed = inspect.stored(found)
        for one in listed:
            one.default_cache_tokens = self._cache_tokens(found[one.model])
        return listed, problems

    def _by_name(self, name: str, quant: str) -> Weights:
        found, problems = inspect.listing(self._folders)
        if name in found:
            return found[name]
        for folder in self._folders:  # a folder with several files, one of which `quant` names
            # `Path.is_dir` raises for a name that is too long for any disk
            if not os.path.isdir(folder / name):  # noqa: PTH112
                continue
            inside = (folder / name).resolve()
            if folder.resolve() in inside.parents:
                return inspect.inspect(inside, quant=quant)
        near = "; ".join(problem for problem in problems if name and name in problem)
        raise FleetError(
            Reason.MODEL_UNKNOWN if not near else Reason.MODEL_FILE_BAD,
            near or f"There are no weights for {name!r} here, and no source was named.",
            field="spec.model",
        )

    def _parse(self, text: str) -> tuple[WeightSource, str]:
        scheme, colon, location = checksum.split(text)[0].partition(":")
        source = self._schemes.get(scheme) if colon else None
        if source is None or not location:
            known = ", ".join(f"{name}:" for name in self._schemes)
            raise FleetError(
                Reason.BAD_REQUEST,
                f"{text!r} is no source (known: {known}).",
                field="spec.source",
            )
        return source, location


async def _check(found: Weights, expected: str, on_bytes: OnBytes) -> None:
    """Checks a whole folder, or all parts of a file."""
    is_folder = await asyncio.to_thread(found.path.is_dir)
    files = await asyncio.to_thread(checksum.files_of, found.path) if is_folder else found.files
    await checksum.check(found.path, files, expected, on_bytes)
