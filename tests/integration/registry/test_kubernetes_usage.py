"""What was used, in Kubernetes' objects: counted once, whatever happens on its way to its month."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from services.registry.store.kubernetes import journal as journals
from services.registry.store.kubernetes.store import KubernetesStore
from services.registry.store.ledger import UsageQuery, UsageRow
from services.registry.store.store import StoreError
from tests.doubles.kubernetes_api import KubernetesApi

HOUR = int(time.time()) // 3600 * 3600


async def leading(store: KubernetesStore) -> int:
    lease = await store.try_lead("one:1")
    assert lease is not None
    return lease.epoch


async def used(store: KubernetesStore) -> int:
    return sum(row.prompt_tokens for row in await store.ledger.usage(UsageQuery()))


def row(hour: int = HOUR) -> UsageRow:
    return UsageRow(hour, "ada", "tiny", prompt_tokens=1)


@pytest.mark.parametrize("writes", range(5))
async def test_what_was_used_counts_once_wherever_its_move_ends(
    api: KubernetesApi, new_store, writes: int
):
    """The journal's two writes and two months': behind each of them the leader is cut off."""
    first, second = new_store(), new_store()
    await leading(first)
    rows = [row(), row(HOUR - 40 * 86_400)]
    await first.ledger.add_usage("gateway", 1, [])
    done, count = api.do, 0

    def cut_after(verb: str, path: str, token: str, content: bytes):
        nonlocal count
        if verb != "get" and count > writes:
            return 403, {"message": "cut off"}
        count += verb != "get"
        return done(verb, path, token, content)

    api.do = cut_after  # type: ignore[method-assign]
    await first.ledger.add_usage("gateway", 2, rows)  # moves at once: nothing has moved yet
    api.do = done  # type: ignore[method-assign]
    api.objects["leases", "fleet"]["spec"]["holderIdentity"] = ""
    await leading(second)

    assert await used(second) == 2
    assert not await second.ledger.add_usage("gateway", 2, rows)
    await second.ledger.add_usage("gateway", 3, rows)
    assert await used(second) == 4
    with pytest.raises(StoreError, match="Another registry leads"):
        await first.ledger.add_usage("gateway", 4, rows)
    with contextlib.suppress(StoreError):  # goes on with its move, if it was in one
        await used(first)
    assert await used(second) == 4


async def test_months_are_removed_when_they_are_old(api: KubernetesApi, new_store):
    store = new_store()
    await leading(store)
    old = HOUR - 90 * 86_400
    await store.ledger.add_usage("gateway", 1, [row(), row(old)])
    months = {name for _, name in api.objects if journals.month_of(old) in name}
    assert len(months) == 1

    await store.ledger.forget_usage(HOUR - 50 * 86_400)

    assert not [name for _, name in api.objects if journals.month_of(old) in name]
    assert await used(store) == 1


async def test_a_journal_that_was_lost_counts_on_from_its_months(api: KubernetesApi, new_store):
    first = new_store()
    await leading(first)
    for number in range(3):
        await first.ledger.add_usage("gateway", number, [row()])
        journal = first._records.ledger.journal_of("gateway").journal
        await journal.change(lambda one: setattr(one, "moved_at", 0))
    await first.resign()
    for place in list(api.objects):
        if place[1].startswith("fleet-usage-") and len(place[1]) == len("fleet-usage-0"):
            del api.objects[place]
    second = new_store()
    await leading(second)

    await second.ledger.add_usage("gateway", 9, [row()])

    assert await used(second) == 4


async def test_reports_count_once_while_leaders_change_under_them(api: KubernetesApi, new_store):
    """A gateway whose report was not taken in tells it again, to whoever leads then."""
    stores = [new_store(), new_store()]
    await leading(stores[0])
    is_over = False

    async def gateway(holder: str) -> int:
        told = 0
        while not is_over or not told:
            try:
                await stores[0].ledger.add_usage(holder, told + 1, [row()])
            except StoreError:
                await asyncio.sleep(0.01)
            else:
                told += 1
        return told

    async with asyncio.timeout(60):
        telling = [asyncio.create_task(gateway(f"gateway-{n}")) for n in range(6)]
        for _ in range(6):
            old, new = stores
            api.objects["leases", "fleet"]["spec"]["holderIdentity"] = ""
            new._leadership._look_at = 0.0
            assert await new.try_lead("two:1")
            with contextlib.suppress(StoreError):  # it does not know yet, and tries
                await old.ledger.add_usage("late", 1, [])
            stores.reverse()
        is_over = True
        told = await asyncio.gather(*telling)

    assert await used(stores[0]) == sum(told)
