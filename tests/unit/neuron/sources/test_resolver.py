"""One bad file in a models folder is a line for the operator, and nothing else."""

from __future__ import annotations

import pathlib
import time

from services.neuron.sources.resolver import Sources
from services.neuron.sources.source import PathSource
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
