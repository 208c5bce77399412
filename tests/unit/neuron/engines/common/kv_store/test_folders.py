import fcntl
import os
import pathlib
from typing import IO

import numpy as np
import pytest

from services.neuron.engines.common.kv_store import folders, tier_files
from services.neuron.engines.common.kv_store.sequence_file import SavedSequence
from services.neuron.engines.common.kv_store.store import KvStore, Tier
from services.neuron.settings import KvStoreSettings

SEQUENCE = SavedSequence(np.arange(9, dtype=np.int32), b"state")


def chosen(tmp_path: pathlib.Path, **more: object) -> KvStoreSettings:
    (tmp_path / "memory").mkdir(exist_ok=True)
    facts = {"memory_folder": str(tmp_path / "memory"), "memory_bytes": 4096, **more}
    return KvStoreSettings(**facts)  # type: ignore[arg-type]


def test_what_is_in_memory_is_gone_with_the_daemon(tmp_path: pathlib.Path) -> None:
    with folders.opened(chosen(tmp_path)) as (tier,):
        folder = pathlib.Path(tier.folder)
        assert folder.stat().st_mode & 0o777 == 0o700
        KvStore([Tier(folder, tier.most_bytes)], identity="m").put("", SEQUENCE, seconds=1)

    assert list((tmp_path / "memory").iterdir()) == []


def test_with_a_folder_it_is_there_at_the_next_start(tmp_path: pathlib.Path) -> None:
    settings = chosen(tmp_path, folder=str(tmp_path / "disk"))
    for _ in range(2):
        with folders.opened(settings) as found:
            tiers = [Tier(pathlib.Path(tier.folder), tier.most_bytes) for tier in found]
            store = KvStore(tiers, identity="m")
            kept = len(store.entries(""))
            store.put("", SEQUENCE, seconds=1)

    assert kept == 1
    assert (tmp_path / "disk").stat().st_mode & 0o777 == 0o700


def test_the_folder_keeps_to_its_bound_at_the_end(tmp_path: pathlib.Path) -> None:
    settings = chosen(tmp_path, folder=str(tmp_path / "disk"), folder_bytes=10)
    with folders.opened(settings) as found:
        tiers = [Tier(pathlib.Path(tier.folder), tier.most_bytes) for tier in found]
        assert KvStore(tiers, identity="m").put("", SEQUENCE, seconds=1)

    assert not list((tmp_path / "disk").rglob("*.kv"))


def test_folders_of_dead_daemons_are_swept_and_those_of_living_ones_stay(
    tmp_path: pathlib.Path,
) -> None:
    settings = chosen(tmp_path)
    dead, alive = (tmp_path / "memory" / f"cortex-kv-{os.getuid()}-{x}" for x in ("dead", "live"))
    for folder in (dead, alive):
        folder.mkdir()
    with (alive / ".alive").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with folders.opened(settings):
            assert not dead.exists()
            assert alive.exists()


def test_a_daemon_that_starts_beside_another_leaves_its_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, flock = chosen(tmp_path), fcntl.flock

    def start_another(file: IO[bytes], how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        with folders.opened(settings):
            flock(file, how)

    monkeypatch.setattr(fcntl, "flock", start_another)
    with folders.opened(settings) as (tier,), folders.opened(settings):
        assert pathlib.Path(tier.folder).is_dir()


def test_what_is_no_folder_of_this_user_is_not_looked_into(tmp_path: pathlib.Path) -> None:
    settings = chosen(tmp_path)
    (tmp_path / "trap").mkdir()
    os.mkfifo(tmp_path / "trap" / ".alive")  # whoever opens it waits for ever
    (tmp_path / "memory" / f"cortex-kv-{os.getuid()}-trap").symlink_to(tmp_path / "trap")

    with folders.opened(settings) as tiers:
        assert len(tiers) == 1


def test_a_folder_that_others_write_to_keeps_what_it_has(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tier_files, "MOST_WAIT_SECONDS", 0.0)
    settings = chosen(tmp_path, folder=str(tmp_path / "disk"))
    (tmp_path / "disk").mkdir()
    with tier_files.locked(tmp_path / "disk"), folders.opened(settings) as (memory, disk):
        made = KvStore([Tier(pathlib.Path(memory.folder), 4096)], identity="m")
        assert made.put("", SEQUENCE, seconds=1)
    assert not list(pathlib.Path(disk.folder).rglob("*.kv"))


def test_a_folder_that_cannot_be_made_costs_its_tier_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    settings = chosen(tmp_path, folder=str(tmp_path / "file" / "below"))

    with folders.opened(settings) as tiers:
        assert len(tiers) == 1


def test_with_zero_bytes_there_is_none(tmp_path: pathlib.Path) -> None:
    with folders.opened(chosen(tmp_path, memory_bytes=0)) as tiers:
        assert tiers == ()


def test_the_key_is_made_once_and_for_its_user_alone(tmp_path: pathlib.Path) -> None:
    key = tmp_path / "state" / "kv.key"
    found: list[str] = []
    for _ in range(2):
        with folders.opened(chosen(tmp_path, key_file=str(key))) as tiers:
            assert len(tiers) == 1
        found.append(key.read_text())

    assert found[0] == found[1]
    assert key.stat().st_mode & 0o777 == 0o600
    assert list(key.parent.iterdir()) == [key]


@pytest.mark.parametrize(("text", "mode"), [("00" * 32, 0o644), ("short", 0o600)])
def test_without_a_key_that_is_kept_from_others_nothing_is_saved(
    tmp_path: pathlib.Path, text: str, mode: int
) -> None:
    key = tmp_path / "kv.key"
    key.write_text(text)
    key.chmod(mode)

    with folders.opened(chosen(tmp_path, key_file=str(key))) as tiers:
        assert tiers == ()
