"""Stored responses: durable, bounded, each found by its owner only."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.gateway.responses_store import ResponsesStore, StoredResponse


def record(number: int, *, owner: str = "", size: int = 10) -> StoredResponse:
    return StoredResponse(f"resp_{number}", None, owner, b"x" * size, b"[]")


def kept(store: ResponsesStore, count: int) -> list[int]:
    return [n for n in range(count) if store.get(f"resp_{n}", owner="") is not None]


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_was_put_is_found_at_once(tmp_path: Path, in_memory: bool) -> None:
    store = ResponsesStore(None if in_memory else tmp_path / "r.sqlite")

    store.put(record(1))

    assert record(1) == store.get("resp_1", owner="")
    store.close()


def test_it_outlives_the_process(tmp_path: Path) -> None:
    before = ResponsesStore(tmp_path / "r.sqlite")
    before.put(record(1))
    before.close()

    after = ResponsesStore(tmp_path / "r.sqlite")

    assert record(1) == after.get("resp_1", owner="")
    after.close()


def test_two_processes_share_one_file(tmp_path: Path) -> None:
    one = ResponsesStore(tmp_path / "r.sqlite")
    other = ResponsesStore(tmp_path / "r.sqlite")
    one.put(record(1))
    one.close()

    assert record(1) == other.get("resp_1", owner="")
    other.close()


def test_the_oldest_go_first_by_number(tmp_path: Path) -> None:
    store = ResponsesStore(tmp_path / "r.sqlite", max_responses=3)
    for number in range(6):
        store.put(record(number))
    store.close()

    again = ResponsesStore(tmp_path / "r.sqlite")
    assert [3, 4, 5] == kept(again, 6)
    again.close()


def test_the_oldest_go_first_by_bytes(tmp_path: Path) -> None:
    store = ResponsesStore(tmp_path / "r.sqlite", max_bytes=1000)
    for number in range(6):
        store.put(record(number, size=398))
    store.close()

    again = ResponsesStore(tmp_path / "r.sqlite")
    assert [4, 5] == kept(again, 6)
    again.close()


def test_nobody_else_finds_or_deletes_it() -> None:
    store = ResponsesStore(None)
    store.put(record(1, owner="ann"))

    assert store.get("resp_1", owner="bob") is None
    assert not store.delete("resp_1", owner="bob")
    assert store.get("resp_1", owner="ann") is not None
    store.close()


def test_what_was_deleted_stays_so() -> None:
    store = ResponsesStore(None)
    store.put(record(1))

    assert store.delete("resp_1", owner="")

    assert store.get("resp_1", owner="") is None
    assert not store.delete("resp_1", owner="")
    store.close()


def test_many_writes_wait_for_the_disk_within_bounds(tmp_path: Path) -> None:
    store = ResponsesStore(tmp_path / "r.sqlite", max_pending=2)
    for number in range(50):
        store.put(record(number))

    assert list(range(50)) == kept(store, 50)
    store.close()
