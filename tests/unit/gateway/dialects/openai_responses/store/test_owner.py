"""Whether another process is still there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from services.gateway.dialects.openai_responses.store.owner import ProcessOwner

_OTHER = """
import pathlib, sys
from services.gateway.dialects.openai_responses.store.owner import ProcessOwner
print(ProcessOwner(pathlib.Path(sys.argv[1])).token, flush=True)
sys.stdin.read()
"""


def files(folder: Path) -> int:
    return len(list(folder.iterdir()))


def test_a_process_is_there_until_it_is_killed(tmp_path: Path) -> None:
    own = ProcessOwner(tmp_path / "r.sqlite")
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER, str(tmp_path / "r.sqlite")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        token = process.stdout.readline().strip()
        alive = own.is_alive(token)
        own.sweep()
        left = files(tmp_path)
        process.kill()

    assert (alive, left) == (True, 2)
    assert not own.is_alive(token)
    own.sweep()
    assert files(tmp_path) == 1
    assert own.is_alive(own.token)
    own.close()
    assert files(tmp_path) == 0


def test_one_that_shares_nothing_knows_itself_alone() -> None:
    own = ProcessOwner(None)

    own.sweep()

    assert own.is_alive(own.token)
    assert not own.is_alive("another")
    own.close()
