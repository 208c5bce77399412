import subprocess
import sys

import pytest

# Ten blocks of 20 MB, between which something small stays; then what is left of them.
SHOWS = """
import gc, pathlib, sys
from services.backplane.process.memory import return_large_blocks
if "told" in sys.argv:
    return_large_blocks()
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
bytes(20 << 20)
before, kept = resident(), []
for _ in range(10):
    block = [bytearray(b"x") * (20 << 20) for _ in range(3)]
    kept.append(bytes(100_000))
    del block
print(resident() - before)
"""


def left(*arguments: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SHOWS, *arguments], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="it asks glibc")
def test_large_blocks_are_given_back() -> None:
    assert left("told") < 4 << 20
