"""Prompts, cancels, mode switches, slow endpoints, tools, editors and disks, at random.

Each seed is one schedule, run in virtual time against the real agent: only the endpoint's
answers and the editor's are made up.
"""

import asyncio
import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import acp
import acp.schema
import pytest

from services.agent.agent import CortexAgent
from services.agent.core.history import AssistantTurn, ResultsTurn, TextPart, UserTurn
from services.agent.core.modes import Mode
from services.agent.core.settings import AgentSettings
from services.agent.endpoints.selection import Endpoints
from services.agent.prompt.prompt import BASE
from services.agent.session_service.opening import AgentEnvironment
from services.agent.tools import files
from tests.doubles.agent_schedule import RandomEditor, RandomEndpoint, World
from tests.doubles.virtual_time import VirtualTimeLoop

UNWINDING = 60.0


async def schedule(world: World) -> None:
    """One session's life, and what must be true of it in the end."""
    rng = world.random
    settings = AgentSettings(max_rounds=rng.choice([1, 3, 10]))
    surroundings = AgentEnvironment(
        environment={"HOME": str(world.project.parent)},
        data=world.project.parent / "data",
        config=world.project.parent / "config",
        today=lambda: "2026-01-01",
    )
    world.agent = agent = CortexAgent(
        settings=settings,
        surroundings=surroundings,
        store=world.store,
        endpoints=Endpoints(
            settings, connect=lambda _: RandomEndpoint(world), clock=world.loop.time
        ),
        base_prompt=BASE,
    )
    agent.on_connect(RandomEditor(world))  # type: ignore[arg-type]
    offered = rng.random() < 0.5
    await agent.initialize(
        1,
        acp.schema.ClientCapabilities(
            fs=acp.schema.FileSystemCapabilities(read_text_file=offered, write_text_file=offered),
            terminal=True,
        ),
    )
    created = await agent.new_session(str(world.project))
    world.session_id = created.session_id
    created_at = world.session.record.created_at
    prompts = await act(world)

    await asyncio.sleep(0)  # a prompt that has not arrived yet is not cancelled
    world.session.take_ticket()
    done, hung = await asyncio.wait(prompts, timeout=UNWINDING) if prompts else (set(), set())
    assert not hung, "a prompt did not end after a cancel"
    reasons = {task.result().stop_reason for task in done if task.exception() is None}
    assert reasons <= {"end_turn", "cancelled", "max_turn_requests", "max_tokens", "refusal"}
    assert all(isinstance(task.exception(), acp.RequestError | None) for task in done)
    await agent.close()
    await asyncio.gather(*world.tasks, return_exceptions=True)
    await check_history(world, len(prompts), created_at)
    assert world.violations == []
    assert set(world.terminals) == world.released
    assert world.streaming == 0


async def act(world: World) -> list["asyncio.Task[Any]"]:
    """Prompts, cancels and switches modes for a while."""
    rng, agent = world.random, world.agent
    prompts: list[asyncio.Task[Any]] = []
    for _ in range(rng.randint(1, 12)):
        await asyncio.sleep(rng.choice([0, 0.01, 0.1, rng.random() * rng.choice([1, 30, 800])]))
        action = rng.choice(["prompt", "prompt", "cancel", "mode", "mode"])
        if action == "prompt" or not prompts:
            block = acp.text_block(f"prompt {len(prompts)}")
            prompts.append(asyncio.create_task(agent.prompt(world.session_id, [block])))
        elif action == "cancel":
            await agent.cancel(world.session_id)
        else:
            mode = rng.choice(list(Mode)).value
            await agent.set_session_mode(world.session_id, mode)
            assert agent._sessions.get(world.session_id).record.mode in set(Mode)
    if rng.random() < 0.5:
        await asyncio.sleep(5000)
    return prompts


async def check_history(world: World, prompts: int, created_at: float) -> None:
    """Nothing is lost, doubled or out of order, and any endpoint would take the whole."""
    record = await world.store.load(world.session_id)
    assert record.created_at == created_at
    users = [turn for turn in record.history if isinstance(turn, UserTurn)]
    texts = [part.text for turn in users for part in turn.parts if isinstance(part, TextPart)]
    assert texts == [f"prompt {number}" for number in range(prompts)]
    answers = [turn for turn in record.history if isinstance(turn, AssistantTurn)]
    said = "".join(turn.text for turn in answers)
    assert all(said.count(marker) == 1 for marker in world.answered), "a round was lost"
    assert said.startswith("".join(world.shown)) or all(piece in said for piece in world.shown)
    ids = [call.id for turn in answers for call in turn.calls]
    assert len(ids) == len(set(ids))
    for turn, following in itertools.pairwise([*record.history, UserTurn(parts=())]):
        if isinstance(turn, AssistantTurn) and turn.calls:
            assert isinstance(following, ResultsTurn)
            assert [c.id for c in turn.calls] == [r.call_id for r in following.results]


def run_schedule(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Path("/dev/shm")
    home = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
    loop = VirtualTimeLoop()
    world = World(seed, loop, home)
    replace = files.replace_file

    def replace_file(target: Path, data: bytes) -> None:
        world.check_write(target)
        replace(target, data)

    monkeypatch.setattr(files, "replace_file", replace_file)
    try:
        loop.run_until_complete(schedule(world))
        left = [task for task in asyncio.all_tasks(loop) if not task.done()]
        assert left == []
        assert {"e.txt", "c.txt", "d.txt"} >= {each.name for each in world.outside.iterdir()}
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    finally:
        loop.close()
        monkeypatch.undo()
        shutil.rmtree(home)


@pytest.mark.parametrize("share", range(4))
def test_no_schedule_hangs_loses_a_round_or_writes_where_it_may_not(
    share: int, monkeypatch: pytest.MonkeyPatch
):
    for seed in range(share * 60, share * 60 + 60):
        run_schedule(seed, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("share", range(20))
def test_thousands_of_schedules(share: int, monkeypatch: pytest.MonkeyPatch):
    for seed in range(10_000 + share * 250, 10_000 + share * 250 + 250):
        run_schedule(seed, monkeypatch)
