"""Responses in the background: ended once, by whoever comes first, in whichever process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.openai_responses import stored
from services.gateway.dialects.openai_responses.background import BackgroundRuns
from services.gateway.dialects.openai_responses.routes import OpenAIResponses
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.answers import HEAD, Answer, Segment, collect, events_of

ANSWER = Answer((Segment("text", "Hello"),))
COLLECTED = collect(ANSWER, events_of(ANSWER))


class Gateway:
    """One process's part of a shared store."""

    def __init__(self, file: Path) -> None:
        self.store = ResponsesStore(file)
        self.runs = BackgroundRuns(self.store)
        self.stopped = 0
        self.told: list[Any] = []

    def begin(self) -> tuple[str, Any]:
        """Id and run of a response in the background."""
        body = {"model": "m", "input": "hello", "background": True}
        detached = decoding.decode(OpenAIResponses(self.store, self.runs), body).detached
        assert detached is not None
        return json.loads(detached.accepted(self._stop))["id"], detached

    def _stop(self) -> None:
        self.stopped += 1

    async def ask(self, kind: Any, response_id: str, *, principal: str = "") -> Any:
        head = msgspec.structs.replace(HEAD, path={"response_id": response_id}, principal=principal)
        return json.loads(await kind(self.store, self.runs).answer(b"", head, None))

    async def status(self, response_id: str) -> str:
        return str((await self.ask(stored.RetrieveResponse, response_id))["status"])


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path / "r.sqlite")
    yield made
    made.store.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path / "r.sqlite")
    yield made
    made.store.close()


async def test_others_find_what_was_answered(one: Gateway, other: Gateway) -> None:
    response_id, run = one.begin()
    assert await other.status(response_id) == "in_progress"

    run.finished([COLLECTED])

    assert await other.status(response_id) == "completed"
    other.runs.recover()
    assert await one.status(response_id) == "completed"


async def test_others_cancel_it(one: Gateway, other: Gateway) -> None:
    response_id, run = one.begin()

    told = await other.ask(stored.CancelResponse, response_id)
    run.finished([COLLECTED])

    assert told["status"] == "cancelled"
    assert await one.status(response_id) == "cancelled"
    assert one.stopped == 0, "another process cannot stop it"


async def test_its_own_process_stops_it(one: Gateway) -> None:
    response_id, run = one.begin()

    await one.ask(stored.CancelResponse, response_id)
    run.failed(FleetError(Reason.CANCELLED, "It was stopped."))

    assert (one.stopped, await one.status(response_id)) == (1, "cancelled")


@pytest.mark.parametrize("by_another", [False, True])
async def test_what_was_deleted_does_not_come_back(
    one: Gateway, other: Gateway, *, by_another: bool
) -> None:
    response_id, run = one.begin()

    await (other if by_another else one).ask(stored.DeleteResponse, response_id)
    run.finished([COLLECTED])

    assert one.stopped == (0 if by_another else 1)
    with pytest.raises(FleetError, match="not found"):
        await one.status(response_id)


async def test_nobody_else_stops_it(one: Gateway) -> None:
    response_id, _ = one.begin()

    with pytest.raises(FleetError, match="not found"):
        await one.ask(stored.CancelResponse, response_id, principal="somebody")
    assert not one.runs.stop(response_id, owner="somebody")
    assert await one.status(response_id) == "in_progress"


async def test_what_a_lost_process_ran_has_failed(tmp_path: Path, other: Gateway) -> None:
    lost = Gateway(tmp_path / "r.sqlite")
    response_id, _ = lost.begin()
    forgotten, _ = lost.begin()
    lost.store.close()
    other.store.delete(forgotten, owner="")

    found = await other.ask(stored.RetrieveResponse, response_id)

    assert (found["status"], found["error"]["code"]) == ("failed", "server_error")
    assert "ended before the response did" in found["error"]["message"]
    other.runs.recover()
    assert other.store.lost_runs() == []
    assert await other.ask(stored.RetrieveResponse, response_id) == found


async def test_nothing_runs_in_the_background_of_a_connection(store: ResponsesStore) -> None:
    with pytest.raises(FleetError, match="background"):
        decoding.decode(
            OpenAIResponses(store), {"model": "m", "input": "hello", "background": True}
        )
