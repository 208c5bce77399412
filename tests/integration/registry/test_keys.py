"""KeyService over real gRPC, with every store: what is made is told to those who watch."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
import psycopg
import pytest

from cortex.v1 import key_service_pb2 as pb
from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.status import from_rpc_error
from services.backplane.security import api_key
from tests.doubles.registry_stand_ins import document, running_fleet

SECONDS = 60.0


@pytest.fixture(params=["sqlite", "postgres", "kubernetes"])
def settings(request, tmp_path):
    """Settings of a registry, with each store; each test has one of its own."""
    if request.param == "sqlite":
        yield document(tmp_path)
        return
    if request.param == "kubernetes":
        yield document(tmp_path, store=request.getfixturevalue("kubernetes"))
        return
    server = request.getfixturevalue("server")
    yield document(tmp_path, store=server)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS cortex_facts, cortex_leader")


class Watch:
    """One gateway's watch."""

    def __init__(self, fleet: Any, **request: Any) -> None:
        self._call = fleet.keys.WatchKeys(pb.WatchKeysRequest(**request))

    async def next(self) -> pb.WatchKeysResponse:
        """The next message that says anything."""
        async with asyncio.timeout(SECONDS):
            while True:
                message = await self._call.read()
                if message.is_whole or message.keys or message.groups:
                    return message
                if message.gone_key_ids or message.gone_groups:
                    return message

    def close(self) -> None:
        self._call.cancel()


async def created(fleet: Any, name: str, **more: Any) -> pb.CreateKeyResponse:
    return await fleet.keys.CreateKey(pb.CreateKeyRequest(name=name, **more))


async def refusal(call: Any) -> FleetError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value)


async def test_keys_are_told_to_watchers_as_they_change(settings):
    async with running_fleet(settings) as fleet:
        first = await created(fleet, "first")
        watch = Watch(fleet)
        whole = await watch.next()
        assert whole.is_whole
        assert [first.key] == [record.key for record in whole.keys]
        assert api_key.digest_of(first.secret) == whole.keys[0].secrets[0].digest

        second = await created(fleet, "second")
        assert [second.key.id] == [record.key.id for record in (await watch.next()).keys]
        await fleet.keys.RevokeKey(pb.RevokeKeyRequest(key="first"))
        assert [first.key.id] == list((await watch.next()).gone_key_ids)
        await fleet.keys.PutKeyGroup(pb.PutKeyGroupRequest(group=pb.KeyGroup(name="team")))
        assert ["team"] == [group.name for group in (await watch.next()).groups]
        await fleet.keys.DeleteKeyGroup(pb.DeleteKeyGroupRequest(name="team"))
        assert ["team"] == list((await watch.next()).gone_groups)
        watch.close()


async def test_keys_outlive_the_registry(settings):
    async with running_fleet(settings) as fleet:
        made = await created(fleet, "laptop", roles=["admin", "user"])
        rotated = await fleet.keys.RotateKey(
            pb.RotateKeyRequest(key="laptop", overlap=protobuf_time.duration(0))
        )

    async with running_fleet(settings) as fleet:
        shown = (await fleet.keys.GetKey(pb.GetKeyRequest(key=made.key.id))).key
        watch = Watch(fleet)
        whole = await watch.next()
        watch.close()

    assert rotated.key == shown
    assert [api_key.digest_of(rotated.secret)] == [s.digest for s in whole.keys[0].secrets]


async def test_a_watcher_that_was_away_hears_of_the_difference_alone(tmp_path):
    async with running_fleet(document(tmp_path)) as fleet:
        await created(fleet, "first")
        watch = Watch(fleet)
        whole = await watch.next()
        watch.close()
        await created(fleet, "second")

        again = Watch(
            fleet,
            after_revision=whole.revision,
            registry_incarnation_id=whole.registry_incarnation_id,
        )
        told = await again.next()
        again.close()
        another = Watch(fleet, after_revision=whole.revision, registry_incarnation_id="other")
        anew = await another.next()
        another.close()

    assert not told.is_whole
    assert ["second"] == [record.key.name for record in told.keys]
    assert anew.is_whole
    assert 2 == len(anew.keys)


async def test_many_keys_come_in_pages(tmp_path):
    async with running_fleet(document(tmp_path)) as fleet:
        names = {f"key {number}" for number in range(450)}
        for name in names:
            await created(fleet, name)

        listed, token = set(), ""
        while True:
            page = await fleet.keys.ListKeys(pb.ListKeysRequest(page_size=200, page_token=token))
            assert len(page.keys) <= 200
            listed |= {key.name for key in page.keys}
            token = page.next_page_token
            if not token:
                break
        watched, more = set(), True
        async with contextlib.AsyncExitStack() as stack:
            watch = Watch(fleet)
            stack.callback(watch.close)
            while more:
                message = await watch.next()
                watched |= {record.key.name for record in message.keys}
                more = message.has_more

    assert names == listed == watched


async def test_a_page_is_bounded(tmp_path):
    async with running_fleet(document(tmp_path)) as fleet:
        error = await refusal(fleet.keys.ListKeys(pb.ListKeysRequest(page_size=1001)))

    assert (Reason.BAD_REQUEST, "page_size") == (error.reason, error.field)


async def test_who_used_a_key_is_shown(tmp_path):
    async with running_fleet(document(tmp_path)) as fleet:
        made = await created(fleet, "laptop")
        await fleet.keys.ReportKeyUse(pb.ReportKeyUseRequest(key_ids=[made.key.id]))

        shown = (await fleet.keys.GetKey(pb.GetKeyRequest(key="laptop"))).key

    assert shown.HasField("last_used_at")
    assert not made.key.HasField("last_used_at")
