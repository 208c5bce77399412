import json
import random

import pytest

from services.registry.store.kubernetes.documents import (
    MOST_BYTES,
    ObjectKind,
    Place,
    TooLargeError,
    body_of,
    content_of,
)
from services.registry.store.store import StoreError

PLACES = [Place(kind, "llm", "fleet-x") for kind in ObjectKind]
SMALL = b'{"facts":{"pin":{"a":"one"}}}'
LARGE = json.dumps({"facts": ["same"] * 100_000}).encode()


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=len)
def test_what_is_written_is_what_is_read(place: Place, content: bytes):
    metadata = {"resourceVersion": "7", "labels": {"a": "b"}, "annotations": {"note": "n"}}

    body = body_of(place, content, metadata=metadata, epoch=5)

    assert content_of(place, json.loads(json.dumps(body))) == content
    assert body["metadata"]["labels"] == {"a": "b"}
    assert body["metadata"]["annotations"] == {"note": "n", "cortex/epoch": "5"}
    assert body["metadata"]["resourceVersion"] == "7"


def test_a_small_config_map_can_be_read_by_people():
    body = body_of(PLACES[0], SMALL, metadata={}, epoch=5)

    assert body["data"] == {"records.json": SMALL.decode()}


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_what_fits_in_no_object_is_told_with_a_way_out(place: Place):
    content = random.Random(5).randbytes(MOST_BYTES + 1)

    with pytest.raises(TooLargeError, match=r"fleet-x would have 100\d{4} bytes.*PostgreSQL"):
        body_of(place, content, metadata={}, epoch=5)


@pytest.mark.parametrize(
    "data",
    [
        {"binaryData": {"records.json.zlib": "AAAA"}},
        {"binaryData": {"records.json.zlib": "not base64"}},
        {"binaryData": {"records.json.zlib": "eJw="}},
    ],
)
def test_what_somebody_has_edited_badly_is_told_by_name(data):
    with pytest.raises(StoreError, match="configmaps/fleet-x cannot be read"):
        content_of(PLACES[0], data)
