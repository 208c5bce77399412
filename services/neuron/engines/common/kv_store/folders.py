"""The folders of the store over the life of a daemon: made at its start, settled at its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
import stat
import tempfile
from collections.abc import Generator
from typing import Final

import structlog

from services.neuron.engine_api.model import KvTier
from services.neuron.engines.common.kv_store.sealing import make_key
from services.neuron.engines.common.kv_store.tier_files import all_files, locked, move
from services.neuron.settings import KvStoreSettings

_PREFIX: Final = "cortex-kv-"
_ALIVE: Final = ".alive"

log = structlog.get_logger()


@contextlib.contextmanager
def opened(settings: KvStoreSettings) -> Generator[tuple[KvTier, ...]]:
    """The tiers of the store while a daemon runs; the fastest first.

    What is in memory goes to disk at the end, as far as there is a folder and room for it, and is
    gone otherwise. A daemon that is killed leaves its folder in memory; the next one sweeps it.
    A folder that cannot be made is said in the log, and there is no such tier; without the key that
    is wanted there is none at all.
    """
    if settings.key_file and not _has_key(pathlib.Path(settings.key_file).expanduser()):
        yield ()
        return
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
                with contextlib.suppress(TimeoutError), locked(disk):
                    pass  # what was left half written is gone
                tiers.append(KvTier(str(disk), settings.folder_bytes))
        try:
            yield tuple(tiers)
        finally:
            if len(tiers) > 1:
                with _said("folder"):
                    _keep(pathlib.Path(tiers[0].folder), tiers[1])


def _has_key(path: pathlib.Path) -> bool:
    """Whether the key is there, made now where it was not."""
    with _said("key_file"):
        make_key(path)
        return True
    return False


@contextlib.contextmanager
def _memory_folder(parent: pathlib.Path) -> Generator[pathlib.Path]:
    """A folder of this process alone, removed at its end; those of dead ones are removed now."""
    for left in parent.glob(f"{_PREFIX}{os.getuid()}-*"):
        if _is_ours(left) and not _is_held(left):
            shutil.rmtree(left, ignore_errors=True)
    made = pathlib.Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent))
    with (made / _ALIVE).open("ab") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        # Under its name only now: another daemon that starts would take it for a dead one's.
        folder = made.rename(parent / f"{_PREFIX}{os.getuid()}-{made.name.rpartition('-')[2]}")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: pathlib.Path) -> bool:
    """Whether this user made it: in a folder of all users anybody can make one of any name."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def _is_held(folder: pathlib.Path) -> bool:
    try:
        with (folder / _ALIVE).open("rb") as alive:
            fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:  # it is being removed, or its daemon was killed while it was made
        return False
    except OSError:
        return True
    return False


def _keep(memory: pathlib.Path, disk: KvTier) -> None:
    """Moves what is in memory to disk, what saves most per byte first, within the bound."""
    target = pathlib.Path(disk.folder)
    with locked(target):  # another neuron may share it
        used = sum(file.size_bytes for file in all_files(target))
        for file in sorted(all_files(memory), key=lambda file: file.worth, reverse=True):
            if used + file.size_bytes <= disk.most_bytes:
                used += file.size_bytes
                move(file.path, target / file.path.relative_to(memory))


@contextlib.contextmanager
def _said(what: str) -> Generator[None]:
    """What cannot be used costs its tier, and is said."""
    try:
        yield
    except OSError as error:
        log.warning("kv_store.unusable", setting=f"neuron.kv_store.{what}", error=str(error))
