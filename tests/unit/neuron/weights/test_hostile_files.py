"""One bad file in a models folder is a line for the operator, and nothing else."""

from __future__ import annotations

import pathlib
import time

import pytest

from services.neuron.sources.resolver import Sources
from services.neuron.sources.source import PathSource
from services.neuron.weights import distrust, gguf
from tests.doubles import hostile_models, scripted

# They are models whose parameters cannot be told: what is wrong with them is for the engine to say.
LISTED = {"sthdr", "stneg", "stprod", "fiforepo"}


def test_a_folder_of_hostile_files_is_listed_with_a_line_each(tmp_path: pathlib.Path) -> None:
    hostile_models.write(tmp_path)
    scripted.build(tmp_path / "good.gguf")
    begun = time.monotonic()

    stored, problems = Sources({"path": PathSource()}, named={}, folders=(tmp_path,)).listing()

    assert {one.model for one in stored} - LISTED == {"good"}
    bad = {*hostile_models.GGUFS, *hostile_models.CONFIGS, "fifo", "devzero", "sparse"}
    for name in bad:
        assert any(name in line for line in problems), name
    for line in problems:
        assert line.isprintable()
        line.encode()
    assert all(one.parameter_size == "" for one in stored if one.model in LISTED)
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("name", hostile_models.GGUFS)
def test_a_hostile_gguf_file_is_bad(tmp_path: pathlib.Path, name: str) -> None:
    path = tmp_path / f"{name}.gguf"
    path.write_bytes(hostile_models.GGUFS[name])

    with pytest.raises(gguf.BadGgufError):
        gguf.read(path)


def test_reading_a_file_has_a_time_limit(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scripted.build(tmp_path / "slow.gguf")
    monkeypatch.setattr(distrust.Patience, "__init__", lambda self: setattr(self, "_ends_at", 0.0))

    with pytest.raises(gguf.BadGgufError, match="takes too long"):
        gguf.read(path)


@pytest.mark.parametrize("value", [True, -1, 1.5, "7", None, [1], 1 << 40, float("inf")])
def test_what_is_no_number_of_tokens_is_not_believed(value: object) -> None:
    with pytest.raises(distrust.DistrustedError, match="context"):
        distrust.whole("context", value)


def test_whole_numbers_may_be_written_with_a_point() -> None:
    assert distrust.whole("context", 4096.0) == 4096
