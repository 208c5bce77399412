import asyncio
import resource
import signal
import stat

import pytest

from services.cli.logs.rotation import keep_bounded, older, turn_over


def test_a_full_file_is_copied_aside_and_emptied_for_those_who_append_to_it(tmp_path):
    path = tmp_path / "a.log"
    with path.open("ab", buffering=0) as appended:
        for number in range(5):
            appended.write(b"%d\n" % number)
            turn_over(path, kept=3)
        appended.write(b"last\n")

    assert b"last\n" == path.read_bytes()
    assert [b"4\n", b"3\n", b"2\n"] == [older(path, n).read_bytes() for n in (1, 2, 3)]
    assert {"a.log", "a.log.1", "a.log.2", "a.log.3"} == {each.name for each in tmp_path.iterdir()}


async def test_files_are_looked_at_while_a_fleet_runs(tmp_path):
    small, large = tmp_path / "small.log", tmp_path / "large.log"
    small.write_bytes(b"x")
    large.write_bytes(b"x" * 100)
    paths = [tmp_path / "not there yet", small, large]

    task = asyncio.create_task(keep_bounded(paths, most_bytes=50))
    async with asyncio.timeout(20):
        while not older(large, 1).exists():
            await asyncio.sleep(0.01)
    task.cancel()

    assert (b"x", b"", 100) == (
        small.read_bytes(),
        large.read_bytes(),
        older(large, 1).stat().st_size,
    )


def test_a_copy_is_for_those_who_may_read_the_file(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes(b"x")
    path.chmod(0o600)

    turn_over(path)

    assert 0o600 == stat.S_IMODE(older(path, 1).stat().st_mode)


def test_a_disk_that_is_full_costs_no_line_and_keeps_no_half_copy(tmp_path):
    path = tmp_path / "a.log"
    lines = b"line\n" * 10_000
    path.write_bytes(lines)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(lines) - 1, hard))  # one byte too few
    try:
        with pytest.raises(OSError, match="File too large"):
            turn_over(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)

    assert lines == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())
