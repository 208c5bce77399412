"""What neighbours may have of the store: files of repositories, and nothing beside them."""

from __future__ import annotations

import pathlib

import msgspec
import pytest

from services.backplane.errors import FleetError, Reason
from services.neuron.sources.hub_files import HubFile, HubListing, HubModel
from services.neuron.sources.hub_store import HubStore

ORIGIN = "hf:acme/tiny@main"
SECRET = b"secret"


@pytest.fixture
def store(tmp_path: pathlib.Path) -> HubStore:
    return HubStore(tmp_path / "hf")


@pytest.mark.parametrize("name", ["../../../secret", "{}/secret", "a/../../../../secret"])
def test_a_listing_leads_nobody_out_of_the_store(
    store: HubStore, tmp_path: pathlib.Path, name: str
) -> None:
    """It may have come from a neighbour, who may then ask for what stands in it."""
    name = name.format(tmp_path)
    folder = store.folder(HubModel.parse("acme/tiny@main"))
    (folder / "a").mkdir(parents=True)
    (folder / "m.gguf").write_bytes(SECRET)
    (tmp_path / "secret").write_bytes(SECRET)
    files = (HubFile(name, len(SECRET)), HubFile("m.gguf", len(SECRET)))
    (folder / ".listing.json").write_bytes(msgspec.json.encode(HubListing("c0ffee", files)))

    assert ["m.gguf"] == list(store.described(ORIGIN).whole)
    assert folder / "m.gguf" == store.file_of(ORIGIN, "c0ffee", "m.gguf")
    with pytest.raises(FleetError) as refused:
        store.file_of(ORIGIN, "c0ffee", name)
    assert refused.value.reason is Reason.NOT_FOUND
