"""What could be loaded from the disk, told to whoever reports it."""

import pathlib
from types import SimpleNamespace
from typing import Any

import pytest

from cortex.v1 import model_pb2 as model
from services.backplane.changes import Changes
from services.neuron.instances.instances import Instances
from services.neuron.sources.hub_store import HubStore
from services.neuron.storage.last_use import LastUse
from services.neuron.storage.listing import DiskListing
from services.neuron.storage.residency import Residency
from services.neuron.storage.unfinished import UnfinishedDownloads


class Disk:
    """Sources that have one model, and what they were listed as."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.looks = 0
        self.told: list[tuple[list[str], list[str]]] = []
        self.unfinished: list[str] = []
        self.last_use = LastUse(folder)
        sources: Any = SimpleNamespace(listing=self._listing)
        self.listing = DiskListing(
            sources,
            Instances(Changes()),
            self.last_use,
            residency=Residency(),
            unfinished=UnfinishedDownloads(HubStore(folder / "hf"), folder, days=14),
            problems=["no GPU"],
            on_listed=self._note,
        )

    def _listing(self) -> tuple[list[model.StoredModel], list[str]]:
        self.looks += 1
        return [model.StoredModel(model="tiny", source="path:/tiny")], ["half.gguf: cut off"]

    def _note(self, stored: Any, broken: Any, unfinished: Any) -> None:
        self.unfinished = [one.origin for one in unfinished]
        self.told.append(([one.model for one in stored], list(broken)))


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Disk:
    return Disk(tmp_path)


async def test_a_look_tells_what_is_there_and_what_is_broken(disk: Disk):
    await disk.listing.look()

    assert disk.told == [(["tiny"], ["no GPU", "half.gguf: cut off"])]


async def test_what_has_just_come_is_seen_to_stand_still_at_once(disk: Disk):
    await disk.listing.offer_at_once()

    assert disk.looks == 2


async def test_the_first_look_in_turn_is_made(disk: Disk):
    await disk.listing.look_in_turn()

    assert disk.looks == 1
