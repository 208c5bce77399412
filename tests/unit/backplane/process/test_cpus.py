"""CPUs that a process may use."""

import os
from pathlib import Path

import pytest

from services.backplane.process.cpus import usable_cpus


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000\n", 4),
        ("250000 100000\n", 3),  # two and a half: three threads are never all held back at once
        ("10000 100000\n", 1),
        ("6400000 100000\n", 4),  # worth more than there are
        ("-1 0\n", 4),
        ("", 4),
    ],
)
def test_a_quota_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4, 5})
    (tmp_path / "cpu.max").write_text(quota)

    assert usable_cpus(tmp_path) == cpus


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == len(os.sched_getaffinity(0))
