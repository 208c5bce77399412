"""The calls on a lent machine, in any order, with a proof that does nothing."""

import itertools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROOF = """#!/usr/bin/env bash
set -e
echo "$PARTS" > "$1"; echo said > "$WORK/part.out"; echo 1 > "$WORK/results/part.json"
mkdir -p "$XDG_CACHE_HOME/cortex/exllamav2/key"
echo so > "$XDG_CACHE_HOME/cortex/exllamav2/key/exllamav2_ext.so"
"""


@pytest.mark.parametrize("order", list(itertools.permutations("123")), ids="".join)
def test_calls_work_in_any_order_with_what_earlier_ones_sent(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    (tmp_path / "gpu").mkdir()
    shutil.copy(ROOT / "gpu/lent.sh", tmp_path / "gpu/lent.sh")
    for name, text in (("gpu/prove.sh", PROOF), ("python", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    for name in (".exl/protos/a.py", ".exl/model/part.aa", "protos/a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")

    for number in order:
        out = tmp_path / f"out{number}"
        out.mkdir()
        environment = {**os.environ, "OUT": str(out), "SCRATCH": str(tmp_path / "scratch")}
        environment["PYTHON"] = str(tmp_path / "python")
        subprocess.run(
            ["bash", str(tmp_path / "gpu/lent.sh"), number], env=environment, check=True, timeout=60
        )
        assert (out / "report.md").read_text().strip()
        for archive in (*out.glob("results.tar"), *out.glob("extension.tar.gz")):
            shutil.copy(archive, tmp_path / ".exl" / archive.name)
