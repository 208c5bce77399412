"""What a gateway makes of what it is told of keys."""

from __future__ import annotations

import pytest

from cortex.v1 import key_service_pb2 as pb
from cortex.v1 import limits_pb2
from services.gateway.auth.holder import ConsoleLevel
from services.gateway.auth.store_keys import StoreKeys


@pytest.fixture
def told():
    """How often others were told of changes."""
    return []


@pytest.fixture
def store(told):
    return StoreKeys(lambda: told.append(1))


def record(key_id: str, *digests: bytes, **key) -> pb.KeyRecord:
    made = pb.Key(id=key_id, principal=key.pop("principal", key_id), **{"roles": ["user"], **key})
    return pb.KeyRecord(key=made, secrets=[pb.KeySecret(digest=one) for one in digests])


def whole(*records, **more) -> pb.WatchKeysResponse:
    return pb.WatchKeysResponse(revision=1, is_whole=True, has_keys=True, keys=records, **more)


def test_pages_count_when_the_last_has_come(store, told):
    store.apply(whole(record("a", b"a")))
    store.apply(whole(record("b", b"b"), has_more=True))
    assert store.get(b"a")
    assert not store.get(b"b")

    store.apply(pb.WatchKeysResponse(revision=1, has_keys=True, keys=[record("c", b"c")]))

    assert not store.get(b"a")
    assert store.get(b"b")
    assert store.get(b"c")
    assert 2 == len(told)


def test_pages_of_a_broken_stream_count_for_nothing(store):
    store.apply(whole(record("a", b"a")))
    store.apply(whole(has_more=True))
    store.broken()

    store.apply(pb.WatchKeysResponse(revision=2, has_keys=True))

    assert store.get(b"a")


def test_a_sign_of_life_changes_nothing_and_counts_as_one(told):
    now = [5.0]
    store = StoreKeys(lambda: told.append(1), lambda: now[0])
    store.apply(whole(record("a", b"a")))
    now[0] = 9.0

    store.apply(pb.WatchKeysResponse(revision=1, has_keys=True))

    assert 1 == len(told)
    assert 9.0 == store.confirmed_at


def test_a_replaced_secret_is_forgotten(store):
    store.apply(whole(record("a", b"old")))

    store.apply(pb.WatchKeysResponse(revision=2, has_keys=True, keys=[record("a", b"new")]))

    assert store.get(b"new")
    assert not store.get(b"old")


def test_a_group_that_comes_later_narrows_keys_that_are_there(store):
    store.apply(whole(record("a", b"a", group="team", roles=["operator"])))
    assert ConsoleLevel.OPERATE is store.get(b"a").console
    group = pb.KeyGroup(
        name="team",
        scopes=pb.KeyScopes(models=["x"], highest_class="batch"),
        limits=limits_pb2.Limits(requests_per_minute=5, tokens_per_day=7),
    )

    store.apply(pb.WatchKeysResponse(revision=2, has_keys=True, groups=[group]))

    holder = store.get(b"a")
    assert not holder.scopes.allow_model("y", "y")
    assert "batch" == holder.terms.highest
    assert ConsoleLevel.NONE is holder.console
    assert 5 == store.limits("a").requests_per_minute


def test_a_keys_own_limits_come_before_its_groups(store):
    group = pb.KeyGroup(
        name="team", limits=limits_pb2.Limits(requests_per_minute=5, tokens_per_day=7)
    )
    own = limits_pb2.Limits(requests_per_minute=0)

    store.apply(whole(record("a", b"a", group="team", limits=own), groups=[group]))

    limits = store.limits("a")
    assert (0, 7) == (limits.requests_per_minute, limits.tokens_per_day)
    assert limits is store.limits("a")
    assert store.limits("b") is None


def test_limits_go_with_their_key(store):
    limits = limits_pb2.Limits(requests_per_minute=1)
    store.apply(whole(record("a", b"a", principal="p", limits=limits)))

    store.apply(pb.WatchKeysResponse(revision=2, has_keys=True, gone_key_ids=["a"]))

    assert store.limits("p") is None
    assert store.get(b"a") is None
