"""Stored responses: durable, bounded, each found by its owner only."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.backplane.settings import SettingsError
from services.gateway.dialects.openai_responses.store.responses import StoredResponse
from services.gateway.dialects.openai_responses.store.store import ResponsesStore


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


def test_the_bounds_hold_while_it_runs() -> None:
    store = ResponsesStore(None, max_responses=10)
    for number in range(1000):
        store.put(record(number))

    assert len(kept(store, 1000)) <= 10 + 64
    assert store.get("resp_999", owner="") is not None
    store.close()


def test_another_process_finds_it_at_once(tmp_path: Path) -> None:
    one, other = (ResponsesStore(tmp_path / "r.sqlite") for _ in range(2))
    for number in range(200):
        (one if number % 2 else other).put(record(number))

    assert list(range(200)) == kept(one, 200) == kept(other, 200)
    one.close()
    other.close()


def test_a_file_that_is_no_store_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    path.write_text("not a database, but long enough to be taken for a broken one" * 20)

    with pytest.raises(SettingsError, match=r"gateway\.responses_file: .*r\.sqlite"):
        ResponsesStore(path)
    with pytest.raises(SettingsError, match=r"gateway\.responses_file"):
        ResponsesStore(tmp_path / "nowhere" / "r.sqlite")


def test_a_full_disk_costs_no_answer(tmp_path: Path) -> None:
    """What cannot be kept is not found later; nothing is raised at the one who answers."""
    store = ResponsesStore(tmp_path / "r.sqlite")
    store._connection.execute("PRAGMA query_only=1")

    store.put(record(1))

    assert store.get("resp_1", owner="") is None
    store.close()


def test_only_its_owner_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    store = ResponsesStore(path)
    store.put(record(1))

    assert {0o600} == {one.stat().st_mode & 0o777 for one in tmp_path.iterdir()}
    store.close()
