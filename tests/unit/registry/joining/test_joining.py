"""What is asked of the authority while somebody else changes who is refused."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from prometheus_client import CollectorRegistry

from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.security import authority
from services.backplane.security.certificates import peer_in
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.key_files import new_key, request_for
from services.backplane.security.roles import Role
from services.backplane.security.settings import FleetSettings
from services.registry.joining import joining as module
from services.registry.joining.joining import Joining
from services.registry.joining.revocations import Revocations
from services.registry.store.open import open_store
from services.registry.store.write_behind import FactWriter


@pytest.fixture
async def credentials(tmp_path):
    authority.create(tmp_path)
    authority.issue(tmp_path, [Role.REGISTRY], out=tmp_path / "own", days=2)
    return FleetCredentials(
        FleetSettings(
            ca=str(tmp_path / "ca.pem"),
            certificate=str(tmp_path / "own.pem"),
            key=str(tmp_path / "own.key"),
        )
    )


@pytest.fixture
def now():
    """Seconds since the epoch, which a test moves on."""
    return [time.time()]


@pytest.fixture
async def store():
    async with open_store("sqlite::memory:", lease_seconds=5) as made:
        yield made


@pytest.fixture
async def joining_as(tmp_path, credentials, now, store):
    """Makes a `Joining` of its own settings."""
    facts = await store.load()

    def made(**settings: bool) -> Joining:
        return Joining(
            folder=tmp_path,
            lifetime_seconds=60.0,
            facts=facts,
            fact_writer=FactWriter(store, Faults(CollectorRegistry(), "test")),
            revocations=Revocations(credentials, lambda: None),
            clock=lambda: now[0],
            **settings,
        )

    return made


@pytest.fixture
def joining(joining_as):
    return joining_as()


class Gate:
    """Holds the signing of certificates up."""

    def __init__(self, monkeypatch) -> None:
        self._is_reached, self._goes_on = threading.Event(), threading.Event()
        signed = authority.sign

        def held(*given, **named):
            self._is_reached.set()
            assert self._goes_on.wait(20)
            return signed(*given, **named)

        monkeypatch.setattr(module, "sign", held)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._is_reached.wait, 20)

    def open(self) -> None:
        self._goes_on.set()


async def joined(joining):
    token, _ = await joining.new_token("beast", 60.0)
    _, certificate = await joining.join(token.secret, request_for(new_key()))
    return peer_in(certificate)


async def revoked_meanwhile(joining, gate, asking):
    await gate.reached()
    revoking = asyncio.create_task(joining.revoke("beast"))
    await asyncio.sleep(0.05)  # it goes as far as it can
    gate.open()
    given = (await asyncio.gather(asking, return_exceptions=True))[0]
    await asyncio.gather(revoking, return_exceptions=True)
    return given


async def test_what_is_renewed_while_its_holder_is_revoked_is_refused(
    joining, credentials, monkeypatch
):
    peer = await joined(joining)
    gate = Gate(monkeypatch)
    asking = asyncio.create_task(joining.renew(peer, request_for(new_key())))

    given = await revoked_meanwhile(joining, gate, asking)

    assert isinstance(given, FleetError) or peer_in(given).serial in credentials.revoked


async def test_what_a_token_gets_while_its_neuron_is_revoked_is_refused(
    joining, credentials, monkeypatch
):
    gate = Gate(monkeypatch)
    token, _ = await joining.new_token("beast", 60.0)
    asking = asyncio.create_task(joining.join(token.secret, request_for(new_key())))

    given = await revoked_meanwhile(joining, gate, asking)

    assert isinstance(given, FleetError) or peer_in(given[1]).serial in credentials.revoked


async def test_a_certificate_that_was_revoked_before_its_turn_is_not_renewed(joining):
    peer = await joined(joining)
    await joining.revoke("beast")

    with pytest.raises(FleetError, match="revoked"):
        await joining.renew(peer, request_for(new_key()))


async def test_a_neuron_renews_one_certificate_at_a_time(joining, monkeypatch):
    peer = await joined(joining)
    gate = Gate(monkeypatch)
    asking = [asyncio.create_task(joining.renew(peer, request_for(new_key()))) for _ in range(3)]
    await gate.reached()
    gate.open()

    told = await asyncio.gather(*asking, return_exceptions=True)

    assert [one.reason for one in told if isinstance(one, FleetError)] == [Reason.RATE_LIMITED] * 2


async def test_every_certificate_that_a_neuron_was_seen_with_is_revoked(joining):
    """An old one, issued by hand, is good for a year after the neuron has renewed it."""
    joining.note("beast", "aaa1")
    joining.note("beast", "aaa2")

    assert await joining.revoke("beast") == ["aaa1", "aaa2"]


async def test_what_was_revoked_is_refused_beyond_its_end_where_clocks_differ(
    joining, credentials, now
):
    first = await joined(joining)
    await joining.revoke("beast")
    now[0] += 3600.0

    joining.note("beast", "aaa1")
    await joining.revoke("beast")

    assert credentials.revoked == {first.serial, "aaa1"}
    now[0] += 2 * 86_400.0
    joining.note("beast", "aaa2")
    await joining.revoke("beast")
    assert credentials.revoked == {"aaa1", "aaa2"}


async def test_a_host_that_has_waited_too_long_cannot_be_approved_nor_stands_in_ones_way(
    joining_as, now
):
    strict = joining_as(asks_approval=True)
    for _ in range(2):
        token, _ = await strict.new_token("beast", 60.0)
        key = new_key()
        assert await strict.join(token.secret, request_for(key)) == ("beast", b"")
        now[0] += 80_000  # the first one's day is over with the second turn
    now[0] -= 80_000 - 10_000

    with pytest.raises(FleetError, match="No host"):
        await strict.approve("other", "")
    assert (await strict.approve("beast", "")).is_approved
    assert (await strict.join(token.secret, request_for(key)))[1]
