"""What the model store's disk says before anything is written to it."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest

from services.neuron.sources.disk_space import file_bytes, folder_bytes, store_problems


def test_a_store_that_is_missing_is_made(tmp_path: pathlib.Path):
    assert store_problems(tmp_path / "a" / "models") == []
    assert [] == list((tmp_path / "a" / "models").iterdir())


def test_a_store_that_cannot_be_made_is_a_problem_that_names_it(tmp_path: pathlib.Path):
    (tmp_path / "file").write_text("")

    (problem,) = store_problems(tmp_path / "file" / "models")

    assert str(tmp_path / "file" / "models") in problem
    assert "store_dir" in problem


def test_a_folder_that_goes_away_while_it_is_counted_has_no_bytes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "a.gguf").write_bytes(b"12")
    (tmp_path / "kept").write_bytes(b"123")
    scan = os.scandir

    def scandir(path: str | int = "."):
        if str(path).endswith("gone"):
            shutil.rmtree(tmp_path / "gone", ignore_errors=True)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)

    assert folder_bytes(tmp_path) == 3


def test_what_is_no_file_has_no_size(tmp_path: pathlib.Path):
    (tmp_path / "file").write_bytes(b"12")

    assert file_bytes(tmp_path / "file") == 2
    assert file_bytes(tmp_path) is None
    assert file_bytes(tmp_path / "gone") is None
    assert file_bytes(tmp_path / "file" / "inside") is None
