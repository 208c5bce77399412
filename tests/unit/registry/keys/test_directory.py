"""Keys are made, replaced and taken back, and what is told of them is in the store."""

from __future__ import annotations

import json

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import CollectorRegistry

from cortex.v1 import key_service_pb2 as pb
from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.security import api_key
from services.registry.keys.directory import KeyDirectory
from services.registry.store.open import open_store
from services.registry.store.store import FactKind, StoreError
from services.registry.store.write_behind import FactWriter


@pytest.fixture
def now():
    """Seconds since the epoch, which a test moves on."""
    return [1_800_000_000.0]


@pytest.fixture
async def store():
    async with open_store("sqlite::memory:", lease_seconds=5) as store:
        yield store


async def opened(store, now):
    writer = FactWriter(store, Faults(CollectorRegistry(), "test"))
    return KeyDirectory(await store.load(), writer, lambda: now[0])


@pytest.fixture
async def keys(store, now):
    return await opened(store, now)


def digests(keys):
    return {s.digest for record in keys.live for s in record.secrets}


async def refused(awaitable) -> FleetError:
    with pytest.raises(FleetError) as caught:
        await awaitable
    return caught.value


async def test_a_key_outlives_the_registry_and_its_secret_is_not_kept(keys, store, now):
    secret, key = await keys.create(pb.CreateKeyRequest(name="laptop", principal="ann"))

    again = await opened(store, now)

    assert again.key("laptop") == key
    assert {api_key.digest_of(secret)} == digests(again)
    assert secret not in json.dumps({k.value: v for k, v in (await store.load()).items()})
    assert ("ann", ["user"]) == (key.principal, list(key.roles))


async def test_a_rotated_key_has_two_secrets_for_a_while(keys, now):
    old, _ = await keys.create(pb.CreateKeyRequest(name="a"))

    new, key = await keys.rotate("a", 60.0)

    record = keys.live[0]
    assert [api_key.digest_of(new), api_key.digest_of(old)] == [s.digest for s in record.secrets]
    assert now[0] + 60 == protobuf_time.seconds(record.secrets[1].ends_at)
    assert now[0] + 60 == protobuf_time.seconds(key.old_secret_ends_at)


async def test_without_overlap_the_old_secret_is_gone(keys):
    await keys.create(pb.CreateKeyRequest(name="a"))

    new, key = await keys.rotate("a", 0.0)

    assert {api_key.digest_of(new)} == digests(keys)
    assert not key.HasField("old_secret_ends_at")


async def test_a_key_that_is_rotated_twice_forgets_its_first_secret(keys):
    first, _ = await keys.create(pb.CreateKeyRequest(name="a"))
    second, _ = await keys.rotate("a", 60.0)
    third, _ = await keys.rotate("a", 60.0)

    assert {api_key.digest_of(second), api_key.digest_of(third)} == digests(keys)
    assert api_key.digest_of(first) not in digests(keys)


async def test_a_revoked_key_stays_revoked_and_is_shown_to_those_who_ask_for_all(keys, store, now):
    _, key = await keys.create(pb.CreateKeyRequest(name="a"))
    await keys.revoke(key.id)
    now[0] += 10
    again = await opened(store, now)

    await again.revoke("a")

    assert [] == again.live
    assert {} == again.keys(include_ended=False)
    assert now[0] - 10 == protobuf_time.seconds(again.keys(include_ended=True)[key.id].revoked_at)
    assert Reason.BAD_REQUEST is (await refused(again.rotate("a", 0.0))).reason


async def test_a_name_is_free_again_when_its_key_has_ended(keys, now):
    await keys.create(pb.CreateKeyRequest(name="a", expires_at=protobuf_time.timestamp(now[0] + 5)))
    assert "name" == (await refused(keys.create(pb.CreateKeyRequest(name="a")))).field
    now[0] += 6

    _, second = await keys.create(pb.CreateKeyRequest(name="a"))

    assert second == keys.key("a")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.CreateKeyRequest(), "name"),
        (pb.CreateKeyRequest(name="a/b"), "name"),
        (pb.CreateKeyRequest(name="a", principal="\n"), "principal"),
        (pb.CreateKeyRequest(name="a", roles=["root"]), "roles"),
        (pb.CreateKeyRequest(name="a", group="none"), "group"),
        (
            pb.CreateKeyRequest(name="a", scopes=pb.KeyScopes(usual_class="vip")),
            "scopes.usual_class",
        ),
        (pb.CreateKeyRequest(name="a", scopes=pb.KeyScopes(models=["*" * 9])), "scopes.models"),
        (
            pb.CreateKeyRequest(name="a", roles=["operator"], scopes=pb.KeyScopes(models=["x"])),
            "roles",
        ),
        (pb.CreateKeyRequest(name="a", expires_at=protobuf_time.timestamp(1.0)), "expires_at"),
        (pb.CreateKeyRequest(name="a", expires_at=Timestamp(seconds=2**63 - 1)), "expires_at"),
        (pb.CreateKeyRequest(name="a", expires_at=Timestamp(nanos=-1)), "expires_at"),
    ],
)
async def test_what_cannot_be_is_refused_by_its_field(keys, request_, field):
    assert field == (await refused(keys.create(request_))).field


async def test_what_the_store_does_not_take_changes_nothing(keys, store, monkeypatch):
    _, key = await keys.create(pb.CreateKeyRequest(name="a"))

    async def fails(*_):
        raise StoreError("no room")

    monkeypatch.setattr(store, "put", fails)

    assert Reason.REGISTRY_UNAVAILABLE is (await refused(keys.revoke("a"))).reason
    assert [key.id] == [record.key.id for record in keys.live]


async def test_a_group_with_keys_in_it_stays(keys):
    await keys.put_group(pb.KeyGroup(name="team"))
    _, key = await keys.create(pb.CreateKeyRequest(name="a", group="team"))
    assert Reason.BAD_REQUEST is (await refused(keys.delete_group("team"))).reason
    await keys.revoke(key.id)

    await keys.delete_group("team")

    assert [] == keys.groups.every()


async def test_when_a_key_was_used_is_kept_and_overwrites_no_change(keys, store, now):
    """Written later, it must not bring back a key that was revoked meanwhile."""
    _, key = await keys.create(pb.CreateKeyRequest(name="a"))
    keys.used([key.id, "unknown"])
    await keys.revoke("a")
    async with keys._fact_writer.writing():
        pass

    again = await opened(store, now)

    assert now[0] == protobuf_time.seconds(again.key("a").last_used_at)
    assert [] == again.live


async def test_keys_that_ended_long_ago_are_forgotten(keys, store, now):
    _, key = await keys.create(pb.CreateKeyRequest(name="a"))
    await keys.revoke("a")
    now[0] += 91 * 86_400

    await keys.create(pb.CreateKeyRequest(name="b"))

    assert key.id not in keys.keys(include_ended=True)
    assert key.id not in (await store.load())[FactKind.KEY]
