"""What the kernel says of real files."""

from __future__ import annotations

import os
import pathlib

import pytest

from services.neuron.storage.residency import Residency, resident_bytes
from services.neuron.weights.inspect import Weights

MIB = 1 << 20
BLOCK = bytes(range(256)) * (MIB // 256)


def written(path: pathlib.Path, mib: int) -> pathlib.Path:
    """A file that is on the disk, and nowhere else."""
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(BLOCK)
        file.flush()
        os.fsync(file.fileno())
    dropped(path)
    if resident_bytes([path]) == mib * MIB:
        pytest.skip("this file system has no disk behind its memory")
    return path


def dropped(path: pathlib.Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(path: pathlib.Path, *, mib: int) -> None:
    """Reads the beginning, and has the kernel read nothing ahead."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for _ in range(mib):
            file.read(MIB)


def test_what_was_read_is_resident_and_what_was_dropped_is_not(tmp_path: pathlib.Path) -> None:
    file = written(tmp_path / "m.gguf", 8)
    assert resident_bytes([file]) == 0

    read(file, mib=2)
    assert resident_bytes([file]) == 2 * MIB
    read(file, mib=8)
    assert resident_bytes([file]) == 8 * MIB

    dropped(file)
    assert resident_bytes([file]) == 0


def test_parts_of_a_model_count_by_their_size(tmp_path: pathlib.Path) -> None:
    parts = [written(tmp_path / name, mib) for name, mib in (("1", 6), ("2", 2))]

    read(parts[1], mib=2)

    assert resident_bytes(parts) == 2 * MIB
    assert resident_bytes([tmp_path / "absent", *parts]) is None


def test_of_a_large_file_a_few_pages_say_how_much_of_it_is_there(tmp_path: pathlib.Path) -> None:
    file = written(tmp_path / "large", 160)  # more pages than are looked at

    read(file, mib=40)

    assert resident_bytes([file]) == pytest.approx(40 * MIB, rel=0.1)


def test_an_empty_file_and_a_folder_are_no_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").write_bytes(b"")

    assert resident_bytes([tmp_path / "empty"]) == 0
    assert resident_bytes([tmp_path / "empty", tmp_path]) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_not_write_to_a_file_is_told_nothing_of_it(tmp_path: pathlib.Path) -> None:
    file = written(tmp_path / "m.gguf", 1)
    file.chmod(0o644)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)

    child = os.fork()
    if not child:  # the kernel would tell this one that all of it is there
        os.setuid(65534)
        os._exit(0 if resident_bytes([file]) is None else 1)

    assert os.waitpid(child, 0)[1] == 0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def weights_of(file: pathlib.Path, mib: int) -> Weights:
    return Weights(path=file, format="gguf", bytes=mib * MIB, files=(file,))


def test_files_are_looked_at_now_and_then_and_once_something_was_loaded(
    tmp_path: pathlib.Path,
) -> None:
    file = written(tmp_path / "m.gguf", 8)
    weights, clock = weights_of(file, 8), Clock()
    residency = Residency(clock)

    def seen(seconds_later: float, *loaded: str) -> int | None:
        residency.of(weights)
        clock.now += seconds_later
        residency.look(loaded)
        return residency.of(weights)

    assert residency.of(weights) is None
    assert seen(0) == 0
    read(file, mib=3)
    assert seen(2) == 0
    assert seen(9) == 3 * MIB
    read(file, mib=8)
    assert seen(2) == 3 * MIB
    assert seen(2, "i1") == 8 * MIB


def test_it_is_told_in_sixteenths(tmp_path: pathlib.Path) -> None:
    weights, residency = weights_of(written(tmp_path / "m.gguf", 32), 32), Residency()
    residency.of(weights)

    read(weights.path, mib=3)
    residency.look([])

    assert residency.of(weights) == 2 * MIB


class SlowClock(Clock):
    """Each look takes half a second of it."""

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


def test_where_looks_take_long_they_are_few_and_everybody_has_a_turn(
    tmp_path: pathlib.Path,
) -> None:
    both = [weights_of(written(tmp_path / name, 1), 1) for name in ("1", "2")]
    clock = SlowClock()
    residency = Residency(clock)

    def round_of_looks(seconds_later: float) -> list[int | None]:
        for each in both:
            residency.of(each)
        clock.now += seconds_later
        residency.look([])
        return [residency.of(each) for each in both]

    assert round_of_looks(0) == [0, None]
    assert round_of_looks(2) == [0, None]
    assert round_of_looks(25) == [0, 0]


def test_what_nobody_asks_for_is_forgotten(tmp_path: pathlib.Path) -> None:
    weights, clock = weights_of(written(tmp_path / "m.gguf", 1), 1), Clock()
    residency = Residency(clock)
    residency.of(weights)
    residency.look([])

    assert residency.of(weights) == 0
    residency.look([])
    clock.now += 1
    residency.look([])

    assert residency.of(weights) is None
