"""The store in Kubernetes' objects when something goes wrong: one leads, and nothing is lost."""

from __future__ import annotations

import asyncio
import base64
import json
import random

import httpx
import pytest

from services.backplane.settings import SettingsError
from services.registry.store.kubernetes.store import KubernetesStore
from services.registry.store.store import FactKind, StoreError
from services.registry.wire import running
from tests.doubles.kubernetes_api import Fault, KubernetesApi
from tests.doubles.processes import free_port
from tests.doubles.registry_neuron import LOOPBACK, eventually
from tests.doubles.registry_stand_ins import document

EMPTY_LEASE = """{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
    "metadata": {"name": "fleet", "namespace": "llm", "resourceVersion": "1", "uid": "u"}}"""


async def leading(store: KubernetesStore) -> int:
    lease = await store.try_lead("one:1")
    assert lease is not None
    return lease.epoch


async def test_the_lease_is_as_kubernetes_own_components_write_it(api: KubernetesApi, new_store):
    store = new_store(2.5)
    epoch = await leading(store)

    lease = api.objects["leases", "fleet"]
    assert lease["spec"]["leaseDurationSeconds"] == 3
    assert lease["spec"]["leaseTransitions"] == 0
    assert lease["metadata"]["annotations"] == {
        "cortex/address": "one:1",
        "cortex/epoch": str(epoch),
    }
    holder, renewed = lease["spec"]["holderIdentity"], lease["spec"]["renewTime"]
    assert await store.renew()
    assert api.objects["leases", "fleet"]["spec"]["renewTime"] > renewed
    await store.resign()
    given_up = api.objects["leases", "fleet"]["spec"]
    assert (given_up["holderIdentity"], given_up["leaseDurationSeconds"]) == ("", 1)
    await leading(store)
    again = api.objects["leases", "fleet"]["spec"]
    assert (again["holderIdentity"], again["leaseTransitions"]) == (holder, 1)


async def test_secrets_are_in_secrets_alone(api: KubernetesApi, new_store):
    store = new_store()
    await leading(store)
    for kind in FactKind:
        await store.put(kind, "name-of-it", f"text-of-{kind.value}.")

    texts = {
        resource: "".join(
            base64.b64decode(text).decode() if resource == "secrets" else text
            for (found, _), body in api.objects.items()
            if found == resource
            for text in (body.get("data") or {}).values()
        )
        for resource in ("secrets", "configmaps")
    }
    for kind in FactKind:
        is_secret = kind in {FactKind.KEY, FactKind.JOIN_TICKET}
        assert (f"text-of-{kind.value}." in texts["secrets"]) is is_secret
        assert (f"text-of-{kind.value}." in texts["configmaps"]) is not is_secret


async def test_every_object_carries_the_epoch_and_what_others_wrote_on_it(
    api: KubernetesApi, new_store
):
    """A chart has made the objects, with its labels."""
    await leading(new_store())
    for body in api.objects.values():
        body["metadata"]["labels"] = {"app": "cortex"}
        body["metadata"]["annotations"]["meta.helm.sh/release-name"] = "fleet"
    api.objects["leases", "fleet"]["spec"] = {}
    other = new_store()
    epoch = await leading(other)
    await other.put(FactKind.PIN, "a", "one")

    assert len(api.objects) == 14
    for body in api.objects.values():
        assert body["metadata"]["annotations"]["cortex/epoch"] == str(epoch)
        assert body["metadata"]["annotations"]["meta.helm.sh/release-name"] == "fleet"
        assert body["metadata"]["labels"] == {"app": "cortex"}


async def test_a_lost_answer_costs_neither_the_fact_nor_the_leadership(
    api: KubernetesApi, new_store
):
    store = new_store()
    await leading(store)
    for _ in range(2):
        api.faults = [Fault(is_done=True, verb="update")]
        assert await store.renew()
        api.faults = [Fault(is_done=True, verb="update")]
        await store.put(FactKind.PIN, "a", "one")
        api.faults = [Fault(verb="update")]
        await store.delete(FactKind.PIN, "a")

    assert (await new_store().load())[FactKind.PIN] == {}


async def test_a_take_whose_answer_was_lost_is_taken_again_at_once(api: KubernetesApi, new_store):
    store = new_store(2.0)
    api.faults = [Fault(times=1, is_done=True, verb="create"), Fault(times=99, verb="create")]
    with pytest.raises(StoreError):
        await store.try_lead("one:1")
    api.faults = []
    first = int(api.objects["leases", "fleet"]["metadata"]["annotations"]["cortex/epoch"])

    assert await leading(store) > first


async def test_what_failed_is_undone_by_the_next_write(api: KubernetesApi, new_store):
    """Nobody knows whether it was done: it was, and who asked was told that it was not."""
    store = new_store()
    await leading(store)
    await store.put(FactKind.PIN, "a", "before")
    await store.delete(FactKind.PIN, "a")
    api.faults = [Fault(is_done=True, verb="update"), Fault(times=99, status=400, verb="update")]
    with pytest.raises(StoreError, match="400"):
        await store.put(FactKind.PIN, "a", "one")
    assert (await new_store().load())[FactKind.PIN] == {"a": "one"}
    api.faults = []

    await store.delete(FactKind.PIN, "a")

    assert (await new_store().load())[FactKind.PIN] == {}


async def test_writes_that_wait_go_together(api: KubernetesApi, new_store):
    store = new_store()
    await leading(store)
    before = api.count("update")
    api.open.clear()
    writes = [store.put(FactKind.KEY_USE, f"k{n}", "1") for n in range(100)]
    writing = asyncio.gather(*writes)
    await asyncio.sleep(0)
    api.open.set()
    await writing

    assert api.count("update") - before <= 8  # two for each of four objects


async def test_who_leaves_in_the_middle_costs_nothing(api: KubernetesApi, new_store):
    store = new_store()
    await leading(store)
    api.open.clear()
    writing = asyncio.create_task(store.put(FactKind.PIN, "a", "one"))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    api.open.set()

    await store.put(FactKind.PIN, "b", "two")

    assert await store.renew()
    assert (await new_store().load())[FactKind.PIN] == {"a": "one", "b": "two"}


async def test_a_fact_that_is_too_large_is_told_and_keeps_no_other_back(new_store):
    store = new_store()
    await leading(store)
    large = random.Random(5).randbytes(1_500_000).hex()
    works = [store.put(FactKind.PIN, "large", large)]
    works += [store.put(FactKind.PIN, f"small{n}", "1") for n in range(20)]

    told, *others = await asyncio.gather(*works, return_exceptions=True)

    assert isinstance(told, StoreError)
    assert "1000000 are the most" in str(told)
    assert "PostgreSQL" in str(told)
    assert others == [None] * 20
    with pytest.raises(StoreError, match="4096 bytes"):
        await store.put(FactKind.PIN, "x" * 5000, "")
    assert await store.renew()
    assert len((await new_store().load())[FactKind.PIN]) == 20


async def test_a_lease_that_was_made_anew_gives_no_lesser_epoch(api: KubernetesApi, new_store):
    """And this host's clock is behind that of the leader before."""
    first = new_store()
    await leading(first)
    await first.resign()
    for (resource, name), body in list(api.objects.items()):
        if resource == "leases":
            del api.objects[resource, name]
        else:
            body["metadata"]["annotations"]["cortex/epoch"] = "9000000000"

    assert await leading(new_store()) > 9_000_000_000


async def test_a_lease_that_was_removed_is_not_taken_before_its_time(api: KubernetesApi, new_store):
    """Its holder may not know yet that it was removed."""
    one, two = new_store(2.0), new_store(2.0)
    await leading(one)
    assert await two.try_lead("two:1") is None
    del api.objects["leases", "fleet"]

    assert await two.try_lead("two:1") is None
    assert await one.renew() is None
    await eventually(lambda: two.try_lead("two:1"))


async def test_a_leader_that_was_deposed_in_the_middle_of_its_claim_leads_not(
    api: KubernetesApi, new_store
):
    slow, quick = new_store(2.0), new_store(60.0)
    held = api.objects
    assert await slow._leadership.take("slow:1")
    held["leases", "fleet"]["spec"]["holderIdentity"] = ""
    await leading(quick)

    with pytest.raises(StoreError, match="Another registry leads"):
        await slow._claim(slow._leadership.epoch or 0)
    assert await slow.try_lead("slow:1") is None
    await quick.put(FactKind.PIN, "a", "one")


async def test_a_claim_that_fails_gives_the_lease_back(api: KubernetesApi, new_store):
    store = new_store(2.0)
    api.rules = [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["get", "create", "update"],
        },
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "update"]},
    ]
    with pytest.raises(StoreError, match=r'secrets "fleet-secrets-.*cannot get'):
        await store.try_lead("one:1")
    assert api.objects["leases", "fleet"]["spec"]["holderIdentity"] == ""
    api.rules = None

    await leading(new_store(2.0))


async def test_the_lease_is_held_while_a_slow_server_has_the_records_claimed(
    api: KubernetesApi, new_store
):
    store = new_store(1.0)
    api.faults = [Fault(times=9, status=503, retry_after="1", verb="create")]
    api.objects["leases", "fleet"] = json.loads(EMPTY_LEASE)

    await leading(store)

    assert api.count("update", "leases") > 2


async def test_an_object_that_was_removed_is_made_again(api: KubernetesApi, new_store):
    store = new_store()
    await leading(store)
    await store.put(FactKind.PIN, "a", "one")
    for place in list(api.objects):
        if place[0] != "leases":
            del api.objects[place]

    await store.put(FactKind.PIN, "a", "two")
    assert (await new_store().load())[FactKind.PIN] == {"a": "two"}


async def test_records_that_cannot_be_read_are_told_by_name(api: KubernetesApi, new_store):
    await leading(new_store())
    api.objects["configmaps", "fleet-facts-2"]["data"] = {"records.json": '{"facts": 7}'}
    api.objects["leases", "fleet"]["spec"]["holderIdentity"] = ""

    with pytest.raises(StoreError, match="configmaps/fleet-facts-2 cannot be read"):
        await new_store().try_lead("two:1")
    with pytest.raises(StoreError, match="configmaps/fleet-facts-2 cannot be read"):
        await new_store().load()


async def test_a_registry_serves_on_while_the_api_server_is_away_and_leads_again(
    api: KubernetesApi, kubernetes: str, tmp_path
):
    metrics = free_port()
    settings = document(
        tmp_path,
        store=kubernetes,
        leader_lease_seconds=2.0,
        metrics_listen=f"127.0.0.1:{metrics}",
    )
    async with running(settings, listen=LOOPBACK):
        await eventually(lambda: shows(metrics, 1))
        api.is_away = True
        await eventually(lambda: shows(metrics, 0))
        api.is_away = False
        await eventually(lambda: shows(metrics, 1))


async def shows(port: int, value: float) -> bool:
    """Whether its metrics say that it leads, and that its store is well: both or neither."""
    async with httpx.AsyncClient() as client:
        page = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    found = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    names = ("cortex_registry_leader", "cortex_registry_store_up")
    return [float(found[name]) for name in names] == [value, value]


async def test_a_cluster_that_cannot_be_used_is_said_in_one_sentence(tmp_path, api, kubernetes):
    api.rules = []
    for url, words in (
        ("kubernetes://llm", "registry.store: its name"),
        ("kubernetes://llm/fleet?server=http://127.0.0.1:1", "registry.store: Kubernetes: no API"),
        (kubernetes, r'registry.store: Kubernetes: 403: leases "fleet" is forbidden'),
    ):
        with pytest.raises(SettingsError, match=words):
            async with running(document(tmp_path, store=url), listen=LOOPBACK):
                pass
