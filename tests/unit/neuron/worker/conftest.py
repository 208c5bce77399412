"""A worker process, and models for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles import scripted
from tests.doubles.scripted import Script
from tests.doubles.worker_process import WorkerProcess

ENDLESS = Script(words=[f" w{i}" for i in range(16)], is_endless=True, name="endless")


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as worker:
        yield worker


@pytest.fixture
def said(tmp_path: Path) -> Path:
    return scripted.build(tmp_path / "said.gguf")


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    return scripted.build(tmp_path / "endless.gguf", ENDLESS)
