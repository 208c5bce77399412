"""What is left of downloads that did not come to their end."""

from __future__ import annotations

import os
import pathlib
import time

import pytest
from structlog.testing import capture_logs

from services.backplane.errors import FleetError, Reason
from services.neuron.sources.hub_files import HubListing, HubModel
from services.neuron.sources.hub_store import HubStore
from services.neuron.storage.unfinished import UnfinishedDownloads

DAY = 86_400
WANTED = HubModel.parse("owner/na.me@v1.0")
ORIGIN = "hf:owner/na.me@v1.0"


class Left:
    """A model store with parts of files that are as old as is said."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.store = HubStore(folder / "hf")

    def part(self, commit: str, size: int, *, days: float = 0.0) -> pathlib.Path:
        folder = self.store.arriving_folder(WANTED, HubListing(commit, ()))
        self.write(folder / "deep" / "m.gguf.part", size, days)
        return folder

    def write(self, path: pathlib.Path, size: int, days: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        at = time.time() - days * DAY
        for each in (path, *path.parents):
            if each == self.folder:
                break
            os.utime(each, (at, at))

    def downloads(self, days: float = 14.0) -> UnfinishedDownloads:
        return UnfinishedDownloads(self.store, self.folder, days=days)


@pytest.fixture
def left(tmp_path: pathlib.Path) -> Left:
    return Left(tmp_path)


def test_without_a_store_there_is_nothing(left: Left):
    assert [] == left.downloads().listed()
    left.downloads().sweep()


def test_what_an_ended_fetch_has_left_is_listed_and_what_one_is_at_is_not(left: Left):
    left.part("c" * 40, 100, days=2)

    (one,) = left.downloads().listed()
    assert (ORIGIN, 100) == (one.origin, one.bytes)
    assert abs(one.modified_at.seconds - (time.time() - 2 * DAY)) < DAY

    with left.store.arriving(WANTED):
        assert [] == left.downloads().listed()


def test_what_is_old_goes_at_the_start_and_the_log_says_so(left: Left):
    old = left.part("a" * 40, 100, days=15)
    package = left.folder / ".fetch-x1"
    left.write(package / "w.whl", 7, 15)
    new = left.part("b" * 40, 50, days=13)
    model = left.store.folder(WANTED) / "m.gguf"
    left.write(model, 3, 100)

    with capture_logs() as logs:
        left.downloads().sweep()

    assert [False, False, True, True] == [one.exists() for one in (old, package, new, model)]
    assert [(ORIGIN, 100, 15.0), ("package", 7, 15.0)] == [
        (one["source"], one["bytes"], one["days"]) for one in logs
    ]


def test_nothing_goes_where_that_is_asked_for(left: Left):
    old = left.part("a" * 40, 100, days=1000)

    left.downloads(days=0).sweep()

    assert old.is_dir()


def test_all_commits_of_a_repository_are_removed_at_once(left: Left):
    left.part("a" * 40, 100)
    left.part("b" * 40, 50)

    assert 150 == left.store.discard_unfinished(ORIGIN)

    with pytest.raises(FleetError) as nothing:
        left.store.discard_unfinished(ORIGIN)
    assert Reason.NOT_FOUND is nothing.value.reason
