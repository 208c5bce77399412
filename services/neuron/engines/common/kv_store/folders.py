"""The folders of the store over the life of a daemon: made at its start, settled at its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Generator
from typing import Final

import structlog

from services.neuron.engine_api.model import KvTier
from services.neuron.engines.common.kv_store.store import SUFFIX, move
from services.neuron.settings import KvStoreSettings

_PREFIX: Final = "cortex-kv-"
_ALIVE: Final = ".alive"

log = structlog.get_logger()


@contextlib.contextmanager
def opened(settings: KvStoreSettings) -> Generator[tuple[KvTier, ...]]:
    """The tiers of the store while a daemon runs; the fastest first.

    What is in memory goes to disk at the end, as far as there is a folder and room for it, and is
    gone otherwise. A daemon that is killed leaves its folder in memory; the next one sweeps it.
    A folder that cannot be made is said in the log, and there is no such tier.
    """
    tiers: list[KvTier] = []
    with contextlib.ExitStack() as held:
        parent = pathlib.Path(settings.memory_folder)
        if settings.memory_bytes:
            with _said("memory_folder"):
                memory = held.enter_context(_memory_folder(parent))
                tiers.append(KvTier(str(memory), settings.memory_bytes))
        if settings.folder and settings.folder_bytes:
            with _said("folder"):
                disk = pathlib.Path(settings.folder).expanduser()
                disk.mkdir(mode=0o700, parents=True, exist_ok=True)
                disk.chmod(0o700)
                for part in disk.glob(f"*/*/*{SUFFIX}.part-*"):
                    part.unlink(missing_ok=True)
                tiers.append(KvTier(str(disk), settings.folder_bytes))
        try:
            yield tuple(tiers)
        finally:
            if len(tiers) > 1:
                with _said("folder"):
                    _keep(pathlib.Path(tiers[0].folder), tiers[1])


@contextlib.contextmanager
def _memory_folder(parent: pathlib.Path) -> Generator[pathlib.Path]:
    """A folder of this process alone, removed at its end; those of dead ones are removed now."""
    for left in parent.glob(f"{_PREFIX}{os.getuid()}-*"):
        if not _is_held(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getuid()}-", dir=parent))
    with (folder / _ALIVE).open("ab") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _is_held(folder: pathlib.Path) -> bool:
    try:
        with (folder / _ALIVE).open("rb") as alive:
            fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:  # it is being made, or being removed
        return False
    except OSError:
        return True
    return False


def _keep(memory: pathlib.Path, disk: KvTier) -> None:
    """Moves what is in memory to disk, what saves most per byte first, within the bound."""
    target = pathlib.Path(disk.folder)
    used = sum(path.stat().st_size for path in target.glob(f"*/*/*{SUFFIX}"))
    for path in sorted(memory.glob(f"*/*/*{SUFFIX}"), key=_worth, reverse=True):
        size = path.stat().st_size
        if used + size <= disk.most_bytes:
            used += size
            move(path, target / path.relative_to(memory))


def _worth(path: pathlib.Path) -> float:
    milliseconds = path.name.removesuffix(SUFFIX).rpartition("-")[2]
    return int(milliseconds) / max(1, path.stat().st_size)


@contextlib.contextmanager
def _said(what: str) -> Generator[None]:
    """A folder that cannot be used costs its tier, and is said."""
    try:
        yield
    except OSError as error:
        log.warning("kv_store.unusable", setting=f"neuron.kv_store.{what}", error=str(error))
