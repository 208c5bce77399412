from __future__ import annotations

import asyncio
import stat

import pytest

from services.backplane.metrics import new_registry
from services.backplane.process.faults import Faults
from services.backplane.settings import SettingsError
from services.registry.fleet.footprints import Learned
from services.registry.store.open import open_store
from services.registry.store.sqlite import SqliteStore
from services.registry.store.store import FactKind, Facts, StoreError
from services.registry.store.write_behind import FactWriter, learned_of


async def test_facts_outlive_the_process(tmp_path):
    url = f"sqlite:{tmp_path / 'deep' / 'registry.sqlite'}"
    async with open_store(url, lease_seconds=5.0) as store:
        await store.put(FactKind.PIN, "a", "one")
        await store.put(FactKind.PIN, "a", "two")
        await store.put(FactKind.CORDON, "beast", "")
        await store.delete(FactKind.CORDON, "beast")
        await store.delete(FactKind.CORDON, "never")

    async with open_store(url, lease_seconds=5.0) as store:
        facts = await store.load()

    assert facts[FactKind.PIN] == {"a": "two"}
    assert facts[FactKind.CORDON] == {}


async def test_the_file_is_not_for_everybody(tmp_path):
    path = tmp_path / "registry.sqlite"
    async with open_store(f"sqlite:{path}", lease_seconds=5.0):
        assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


async def test_a_second_registry_on_one_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("services.registry.store.sqlite.LOCK_SECONDS", 0.1)
    url = f"sqlite:{tmp_path / 'registry.sqlite'}"
    async with open_store(url, lease_seconds=5.0) as store:
        await store.put(FactKind.PIN, "a", "")
        with pytest.raises(SettingsError, match="locked"):
            async with open_store(url, lease_seconds=5.0):
                pass


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:/proc/nowhere/x",
        "mysql://x",
        "nonsense",
        "kubernetes://llm",
        "kubernetes://llm/fleet",
    ],
)
async def test_a_store_that_cannot_be_used_is_a_settings_error(url, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SettingsError, match=r"registry\.store: "):
        async with open_store(url, lease_seconds=5.0):
            pass


class Brittle:
    """A store that fails as often as it is told to."""

    def __init__(self) -> None:
        self.failures = 0
        self.written: list[tuple[FactKind, str, str]] = []

    async def put(self, kind: FactKind, key: str, value: str) -> None:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise StoreError("not now")
        self.written.append((kind, key, value))


def faults() -> Faults:
    return Faults(new_registry("registry"), "registry")


async def test_a_fact_that_raises_what_nobody_foresaw_keeps_no_other_back():
    collectors = new_registry("registry")
    store = Brittle()
    put = store.put

    async def defective(kind: FactKind, key: str, value: str) -> None:
        if key == "bad":
            raise RuntimeError("planted")
        await put(kind, key, value)

    store.put = defective  # type: ignore[method-assign]
    writer = FactWriter(store, Faults(collectors, "registry"))  # type: ignore[arg-type]
    async with writer.writing():
        writer.write_later(FactKind.NEURON, "bad", "1")
        writer.write_later(FactKind.NEURON, "good", "1")
        for _ in range(5):
            await asyncio.sleep(0)

        assert [key for _, key, _ in store.written] == ["good"]
    name = "cortex_registry_unforeseen_errors_total"
    assert collectors.get_sample_value(name, {"place": "facts"}) == 1.0


async def test_what_nobody_waits_for_is_written_behind_and_the_rest_at_the_end():
    store = Brittle()
    writer = FactWriter(store, faults())  # type: ignore[arg-type]
    async with writer.writing():
        writer.write_later(FactKind.NEURON, "a", "1")
        writer.write_later(FactKind.NEURON, "a", "2")

    assert store.written == [(FactKind.NEURON, "a", "2")]


async def test_a_failed_write_is_tried_again_with_the_next():
    store = Brittle()
    store.failures = 1
    writer = FactWriter(store, faults())  # type: ignore[arg-type]
    async with writer.writing():
        writer.write_later(FactKind.NEURON, "a", "1")
        for _ in range(5):
            await asyncio.sleep(0)
        writer.write_later(FactKind.NEURON, "b", "1")

    assert [key for _, key, _ in store.written] == ["a", "b"]


async def test_facts_that_wait_are_given_to_the_store_together():
    """So that one that writes a whole object for each does so once for many."""
    store, under_way, most = Brittle(), 0, 0
    put = store.put

    async def counted(kind: FactKind, key: str, value: str) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await put(kind, key, value)
        under_way -= 1

    store.put = counted  # type: ignore[method-assign]
    writer = FactWriter(store, faults())  # type: ignore[arg-type]
    async with writer.writing():
        for number in range(100):
            writer.write_later(FactKind.KEY_USE, str(number), "1")

    assert len(store.written) == 100
    assert most == 64


async def test_what_an_operator_said_fails_loudly():
    store = Brittle()
    store.failures = 1

    with pytest.raises(StoreError):
        await FactWriter(store, faults()).write(FactKind.PIN, "a")  # type: ignore[arg-type]


async def test_learned_figures_come_back_and_unreadable_ones_are_left_out():
    store = SqliteStore(":memory:")
    await store.open()
    writer = FactWriter(store, faults())
    async with writer.writing():
        writer.write_learned_later({"m@1@": Learned(5, 5, 1, 2.5, 1)})
    await store.put(FactKind.FOOTPRINT, "bad", "{")
    facts: Facts = await writer.load()

    assert learned_of(facts) == {"m@1@": Learned(5, 5, 1, 2.5, 1)}
    await store.close()
