import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.agent.core.history import (
    AssistantTurn,
    ResultsTurn,
    TextPart,
    ToolCall,
    ToolResult,
    UserTurn,
)
from services.agent.storage.store import SessionNotFoundError, SessionStore, SessionStoreError


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def store(tmp_path: Path):
    with ThreadPoolExecutor(max_workers=1) as executor:
        yield SessionStore(tmp_path / "sessions", executor=executor, now=Clock())


async def saved(store: SessionStore, cwd: str = "/proj", title: str = "t"):
    record = store.create(cwd=cwd, mode="default", model="m")
    record.title = title
    await store.save(record)
    return record


async def test_a_session_comes_back_as_it_was(store: SessionStore):
    record = await saved(store)
    record.history += [
        UserTurn((TextPart("hi 🌍"),)),
        AssistantTurn("t", calls=(ToolCall("c", "bash", {"command": "ls", "n": [1, None]}),)),
        ResultsTurn((ToolResult("c", "bash", "out", is_error=True),)),
    ]
    created_at = record.created_at
    await store.save(record)

    loaded = await store.load(record.session_id)

    assert record == loaded
    assert created_at == loaded.created_at < loaded.updated_at


async def test_ids_differ_between_stores(store: SessionStore):
    ids = {store.create(cwd="/", mode="plan", model="").session_id for _ in range(100)}

    assert 100 == len(ids)


@pytest.mark.parametrize("session_id", ["../secret", "/etc/passwd", "", "x", "." * 36, "A" * 36])
async def test_an_id_cannot_name_another_file(store: SessionStore, session_id: str):
    with pytest.raises(SessionNotFoundError):
        await store.load(session_id)


async def test_a_failed_write_leaves_the_old_file_and_no_litter(
    store: SessionStore, tmp_path: Path
):
    record = await saved(store)
    record.history.append(UserTurn((TextPart("\ud800"),)))

    with pytest.raises(SessionStoreError):
        await store.save(record)

    assert [] == (await store.load(record.session_id)).history
    assert [f"{record.session_id}.json"] == [
        each.name for each in (tmp_path / "sessions").iterdir()
    ]


async def test_the_file_is_private(store: SessionStore, tmp_path: Path):
    record = await saved(store)

    mode = (tmp_path / "sessions" / f"{record.session_id}.json").stat().st_mode

    assert 0o600 == mode & 0o777


async def test_the_list_is_newest_first_by_directory_and_in_pages(store: SessionStore):
    records = [await saved(store, cwd="/a" if n % 2 else "/b") for n in range(120)]

    everything: list[str] = []
    cursor = None
    sizes = []
    while True:
        page, cursor = await store.page(cwd=None, cursor=cursor)
        everything += [each.session_id for each in page]
        sizes.append(len(page))
        if cursor is None:
            break
    only_a, _ = await store.page(cwd="/a", cursor=None)

    assert [50, 50, 20] == sizes
    assert [record.session_id for record in reversed(records)] == everything
    assert {"/a"} == {each.cwd for each in only_a}


async def test_bad_files_are_skipped_and_bad_cursors_refused(store: SessionStore, tmp_path: Path):
    record = await saved(store)
    (tmp_path / "sessions" / "broken.json").write_text("{")
    (tmp_path / "sessions" / "other.json").write_text(json.dumps({"x": 1}))

    await saved(store, title="")

    page, _ = await store.page(cwd=None, cursor=None)

    assert [record.session_id] == [each.session_id for each in page]
    for cursor in ("!!", "AAAA", "ü"):
        with pytest.raises(ValueError, match="cursor"):
            await store.page(cwd=None, cursor=cursor)


async def test_a_file_from_a_later_version_with_more_fields_loads(
    store: SessionStore, tmp_path: Path
):
    record = await saved(store)
    path = tmp_path / "sessions" / f"{record.session_id}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "novelty": 1}))

    assert record.session_id == (await store.load(record.session_id)).session_id


async def test_a_session_of_a_newer_agent_is_not_read_wrongly(store: SessionStore):
    record = await saved(store)
    record.version = 2
    await store.save(record)

    with pytest.raises(SessionNotFoundError, match="newer agent"):
        await store.load(record.session_id)


async def test_what_a_killed_agent_left_half_written_is_swept(store: SessionStore, tmp_path: Path):
    record = await saved(store)
    folder = tmp_path / "sessions"
    gone = await asyncio.create_subprocess_exec("true")
    await gone.wait()
    dead = folder / f".{record.session_id}.{gone.pid}.tmp"
    alive = folder / f".{record.session_id}.{os.getpid()}.tmp"
    foreign = folder / ".notes.tmp"
    for path in (dead, alive, foreign):
        path.write_text("half")

    await store.tidy(kept=0)

    assert [dead.exists(), alive.exists(), foreign.exists()] == [False, True, True]
    assert await store.load(record.session_id) == record


async def test_the_oldest_sessions_go_and_open_ones_stay(store: SessionStore, tmp_path: Path):
    records = [await saved(store) for _ in range(4)]
    for age, record in enumerate(records):
        os.utime(tmp_path / "sessions" / f"{record.session_id}.json", (age, age))
    await store.claim(records[0].session_id)

    removed = await store.tidy(kept=2)

    assert removed == [records[1].session_id]
    left = {path.name for path in (tmp_path / "sessions").iterdir()}
    assert left == {
        *(f"{records[number].session_id}.json" for number in (0, 2, 3)),
        f".{records[0].session_id}.lock",
    }


async def test_a_deleted_session_leaves_nothing(store: SessionStore, tmp_path: Path):
    record = await saved(store)
    await store.claim(record.session_id)

    await store.delete(record.session_id)
    await store.release(record.session_id)

    assert not list((tmp_path / "sessions").iterdir())
