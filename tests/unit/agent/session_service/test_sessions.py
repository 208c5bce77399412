"""Sessions of one editor: opened once, closed once."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Generator
from pathlib import Path
from typing import Any

import acp
import pytest

from services.agent.core.settings import AgentSettings
from services.agent.session_service import opening
from services.agent.session_service.opening import AgentEnvironment, SessionOpening
from services.agent.session_service.sessions import OpenSessions
from services.agent.storage.store import SessionStore


class Servers:
    """Stands for a session's MCP servers, which are processes."""

    running = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        type(self).running += 1

    async def close(self) -> None:
        await asyncio.sleep(0)
        type(self).running -= 1


@pytest.fixture
def store(tmp_path: Path) -> Generator[SessionStore]:
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        yield SessionStore(tmp_path / "sessions", executor=executor, now=lambda: 1.0)


@pytest.fixture
def sessions(store: SessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(opening, "McpServers", Servers)
    monkeypatch.setattr(Servers, "running", 0)
    surroundings = AgentEnvironment(
        environment={}, data=tmp_path, config=tmp_path, today=lambda: "2026-01-01"
    )
    made = OpenSessions(
        store=store,
        opening=SessionOpening(
            settings=AgentSettings(), surroundings=surroundings, store=store, base="You help."
        ),
        tools=(),
    )
    made.connection = object()  # type: ignore[assignment] # nothing is said to it
    return made


async def test_a_session_that_is_being_closed_is_loaded_as_it_was_left(store, sessions, tmp_path):
    """The turn in flight ends with a save; who reads before that would undo it."""
    record = store.create(cwd=str(tmp_path), mode="default", model="")
    await store.save(record)
    session = sessions.open(record, None)
    async with session.lock:
        closing = asyncio.create_task(sessions.close(record.session_id))
        await asyncio.sleep(0)
        loading = asyncio.create_task(sessions.reopen(record.session_id, str(tmp_path), None, None))
        await asyncio.sleep(0)
        session.record.title = "What was said last"
        await session.save()

    await closing
    assert (await loading).record.title == "What was said last"
    await sessions.close_all()


async def test_an_editor_that_loads_a_session_twice_at_once_has_it_once(store, sessions, tmp_path):
    """Two writers would take turns at overwriting each other's history."""
    record = store.create(cwd=str(tmp_path), mode="default", model="")
    await store.save(record)

    await asyncio.gather(
        *(sessions.reopen(record.session_id, str(tmp_path), None, None) for _ in range(3))
    )

    assert Servers.running == 1
    await sessions.close_all()
    assert Servers.running == 0


async def test_a_session_of_another_process_is_refused_with_words(store, sessions, tmp_path):
    """Two processes would overwrite each other's turns."""
    record = store.create(cwd=str(tmp_path), mode="default", model="")
    await store.save(record)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        other = SessionStore(tmp_path / "sessions", executor=executor, now=lambda: 1.0)
        await other.claim(record.session_id)
        for refused in (
            sessions.reopen(record.session_id, str(tmp_path), None, None),
            sessions.delete(record.session_id),
        ):
            with pytest.raises(acp.RequestError) as caught:
                await refused
            assert "open in another process" in str(caught.value.data)
        await other.release(record.session_id)

        await sessions.reopen(record.session_id, str(tmp_path), None, None)
        await sessions.close(record.session_id)
        await other.claim(record.session_id)
        await other.release(record.session_id)
