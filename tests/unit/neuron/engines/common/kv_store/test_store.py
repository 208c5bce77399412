import errno
import itertools
import os
import pathlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.neuron.engines.common.kv_store import sequence_file, tier_files
from services.neuron.engines.common.kv_store.sequence_file import SavedSequence
from services.neuron.engines.common.kv_store.store import MOST_FILES, KvStore, Tier
from services.neuron.engines.common.kv_store.tier_files import SUFFIX

KIB = 1 << 10


def sequence(*tokens: int, size: int = KIB) -> SavedSequence:
    return SavedSequence(np.asarray(tokens, dtype=np.int32), os.urandom(size))


def store(
    folder: pathlib.Path, *bounds: int, identity: str = "model", key: bytes | None = None
) -> KvStore:
    tiers = [Tier(folder / str(level), bound) for level, bound in enumerate(bounds)]
    for tier in tiers:
        tier.folder.mkdir(exist_ok=True)
    return KvStore(tiers, identity=identity, key=key)


def held(made: KvStore, scope: str = "") -> list[list[int]]:
    return sorted(entry.tokens.tolist() for entry in made.entries(scope))


def used(folder: pathlib.Path, level: int = 0) -> int:
    files = (folder / str(level)).rglob(f"*{SUFFIX}")
    return sum(path.stat().st_size for path in files)


def test_what_was_put_is_found_again_by_another_process(tmp_path: pathlib.Path) -> None:
    saved = sequence(1, 2, 3)
    assert store(tmp_path, 8 * KIB).put("", saved, seconds=1.0)

    other = store(tmp_path, 8 * KIB)
    (entry,) = other.entries("")
    read = other.read(entry, seconds=60)

    assert read is not None
    assert read.state == saved.state


def test_a_longer_sequence_takes_the_place_of_its_beginnings(tmp_path: pathlib.Path) -> None:
    made = store(tmp_path, 64 * KIB)
    made.put("", sequence(1, 2), seconds=1.0)
    made.put("", sequence(7, 8), seconds=1.0)
    made.put("", sequence(1, 2, 3), seconds=1.0)
    made.put("", sequence(1, 2), seconds=1.0)

    assert held(made) == [[1, 2, 3], [7, 8]]


def test_a_beginning_stays_where_the_longer_one_is_not_kept(tmp_path: pathlib.Path) -> None:
    made = store(tmp_path, 3 * KIB)
    made.put("", sequence(1, 2), seconds=1.0)

    assert not made.put("", sequence(1, 2, 3, size=9 * KIB), seconds=9.0)
    assert held(made) == [[1, 2]]


def test_a_beginning_makes_room_for_the_longer_one(tmp_path: pathlib.Path) -> None:
    made = store(tmp_path, 2 * KIB)
    made.put("", sequence(1, 2), seconds=1.0)

    assert made.put("", sequence(1, 2, 3, size=KIB + 9), seconds=1.0)  # less per byte
    assert held(made) == [[1, 2, 3]]


def test_what_cannot_be_written_in_memory_goes_to_disk(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, write = store(tmp_path, 8 * KIB, 8 * KIB), sequence_file.write

    def full(path: pathlib.Path, saved: SavedSequence, **named: bytes | None) -> None:
        if path.is_relative_to(tmp_path / "0"):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, saved, **named)

    monkeypatch.setattr(sequence_file, "write", full)

    assert made.put("", sequence(1, 2), seconds=1.0)
    assert held(made) == [[1, 2]]


def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path: pathlib.Path) -> None:
    made = store(tmp_path, 64 * KIB)
    made.put("", sequence(1), seconds=1.0)
    (entry,) = made.entries("")
    part = entry.path.with_name(f"0-1{SUFFIX}.part-1")
    part.write_bytes(b"half")

    made.put("", sequence(2), seconds=1.0)

    assert not part.exists()


def test_nobody_waits_long_for_others_that_write(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tier_files, "MOST_WAIT_SECONDS", 0.0)
    made = store(tmp_path, 8 * KIB)

    with tier_files.locked(tmp_path / "0"), pytest.raises(TimeoutError):
        made.put("", sequence(1), seconds=1.0)


def test_what_saves_least_per_byte_goes_to_disk_and_then_for_good(tmp_path: pathlib.Path) -> None:
    made = store(tmp_path, 3 * KIB, 3 * KIB)

    for token, seconds in enumerate([5.0, 1.0, 4.0, 2.0, 3.0]):
        made.put("", sequence(token), seconds=seconds)

    assert held(made) == [[0], [2], [3], [4]]  # 1.0 is gone
    fast = [e.tokens[0] for e in made.entries("") if e.path.is_relative_to(tmp_path / "0")]
    assert sorted(fast) == [0, 2]


def test_what_is_worth_less_than_all_is_not_kept(tmp_path: pathlib.Path) -> None:
    made = store(tmp_path, 3 * KIB)
    made.put("", sequence(1), seconds=2.0)
    made.put("", sequence(2), seconds=2.0)

    assert not made.put("", sequence(3), seconds=1.0)
    assert not made.put("", sequence(4, size=9 * KIB), seconds=900.0)
    assert held(made) == [[1], [2]]


def test_a_damaged_file_is_dropped(tmp_path: pathlib.Path) -> None:
    made = store(tmp_path, 8 * KIB)
    made.put("", sequence(1), seconds=1.0)
    (entry,) = made.entries("")
    entry.path.write_bytes(entry.path.read_bytes()[:-1])

    assert made.read(entry, seconds=60) is None
    assert held(made) == []


def test_a_file_of_another_key_is_dropped(tmp_path: pathlib.Path) -> None:
    store(tmp_path, 64 * KIB, key=b"k" * 32).put("", sequence(1, 2, 3), seconds=1.0)
    store(tmp_path, 64 * KIB).put("bob", sequence(1, 2, 3), seconds=1.0)

    changed = store(tmp_path, 64 * KIB, key=b"o" * 32)

    assert held(changed) == held(changed, "bob") == []
    assert not list(tmp_path.rglob(f"*{SUFFIX}"))


def test_the_number_of_files_is_bounded(tmp_path: pathlib.Path) -> None:
    made = store(tmp_path, 1 << 30)
    for token in range(MOST_FILES + 3):
        made.put("", sequence(token, size=8), seconds=float(token))

    assert len(held(made)) == MOST_FILES
    assert [0] not in held(made)


@pytest.mark.parametrize("bounds", [(0,), (0, 0), ()])
def test_without_room_nothing_is_kept(tmp_path: pathlib.Path, bounds: tuple[int, ...]) -> None:
    made = store(tmp_path, *bounds)

    assert not made.put("", sequence(1), seconds=1.0)
    assert held(made) == []


KEYS = list(
    itertools.product(["model", "another", "model "], ["", "alice", "bob", "../alice", "a/b"])
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    puts=st.lists(
        st.tuples(
            st.sampled_from(KEYS),
            st.lists(st.integers(0, 1), min_size=1, max_size=4),
            st.integers(1, 3000),
            st.floats(0, 9),
        ),
        max_size=30,
    ),
    key=st.sampled_from([None, b"k" * 32]),
)
def test_nobody_finds_what_is_anothers_and_the_bounds_hold(
    tmp_path_factory: pytest.TempPathFactory,
    puts: list[tuple[tuple[str, str], list[int], int, float]],
    key: bytes | None,
) -> None:
    folder = tmp_path_factory.mktemp("kv")
    stores = {name: store(folder, 6 * KIB, 9 * KIB, identity=name, key=key) for name, _ in KEYS}
    mine: dict[tuple[str, str], set[bytes]] = {key: set() for key in KEYS}
    for (name, owner), tokens, size, seconds in puts:
        saved = sequence(*tokens, size=size)
        mine[name, owner].add(saved.state)
        stores[name].put(owner, saved, seconds=seconds)

        assert used(folder) <= 6 * KIB
        assert used(folder, 1) <= 9 * KIB
    for identity, scope in KEYS:
        for entry in stores[identity].entries(scope):
            read = stores[identity].read(entry, seconds=60)
            assert read is not None
            assert read.state in mine[identity, scope]
    assert all(path.resolve().is_relative_to(folder) for path in folder.rglob("*"))
