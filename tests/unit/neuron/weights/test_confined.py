"""Files that lead out of their folders are found, whatever the links."""

from __future__ import annotations

import mmap
import pathlib

import pytest

from services.neuron.weights.confined import first_outside, is_inside, mapped_models


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "own").write_bytes(b"GGUF own")
    (tmp_path / "out").write_bytes(b"GGUF out")
    return folder


def test_what_lies_below_is_inside_by_whatever_link(folder: pathlib.Path) -> None:
    (folder.parent / "link").symlink_to(folder)

    assert is_inside(folder / "deep" / "own", [folder.parent / "link"])
    assert is_inside(folder.parent / "link" / "deep" / "own", [folder])
    assert first_outside([folder], [folder]) is None


def test_a_link_in_a_folder_that_leads_out_of_it_is_found(folder: pathlib.Path) -> None:
    link = folder / "deep" / "other"
    link.symlink_to(folder.parent / "out")

    assert first_outside([folder], [folder]) == link
    assert first_outside([link], [folder]) == link


def test_links_in_a_circle_are_outside(folder: pathlib.Path) -> None:
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")

    assert not is_inside(folder / "a", [folder])


def test_a_mapped_file_is_known_by_its_own_path(folder: pathlib.Path) -> None:
    link = folder / "link"
    link.symlink_to(folder.parent / "out")
    before = mapped_models()

    with link.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        link.unlink()
        mapped = mapped_models() - before

    assert mapped == {str(folder.parent / "out")}
