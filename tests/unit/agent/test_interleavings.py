"""Prompts, cancels, mode switches, slow endpoints, tools, editors and disks, at random.

Each seed is one schedule, run in virtual time against the real agent: only the endpoint's
answers and the editor's are made up.
"""

import asyncio
import itertools
import json
import os
import random
import shutil
import tempfile
from collections.abc import AsyncGenerator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import acp
import acp.schema
import pytest

from services.agent.agent import CortexAgent
from services.agent.core.history import AssistantTurn, ResultsTurn, TextPart, UserTurn
from services.agent.core.modes import Mode
from services.agent.core.plan_dir import PlanDirectory
from services.agent.core.settings import Settings
from services.agent.endpoints import endpoint as events
from services.agent.endpoints.selection import Endpoints
from services.agent.prompt.prompt import BASE
from services.agent.session_service import sessions
from services.agent.session_service.opening import Surroundings
from services.agent.storage.store import SessionStore
from services.agent.tools import files
from tests.unit.agent.virtual_time import SlowExecutor, VirtualTimeLoop

SILENCE = 300.0  # after which a real client gives up on an endpoint
UNWINDING = 60.0


class World:
    """Everything of one schedule, and what was seen to happen."""

    def __init__(self, seed: int, loop: VirtualTimeLoop, home: Path) -> None:
        self.random = random.Random(seed)
        self.loop = loop
        self.project = home / "project"
        self.outside = home / "outside"
        self.project.mkdir()
        self.outside.mkdir()
        (self.project / "a.txt").write_text("one two three\n")
        (self.project / "link").symlink_to(self.outside)
        self.plans = PlanDirectory(home / "data", str(self.project))
        plans = self.plans.create()
        assert plans is not None
        (plans / "way-out").symlink_to(self.project)
        self.plan_directory = plans
        self.store = SessionStore(
            home / "data/sessions", executor=SlowExecutor(loop, self.disk_delay), now=loop.time
        )
        self.numbers = itertools.count()
        self.answered: list[str] = []  # markers of answers that arrived whole
        self.approved: set[str] = set()
        self.violations: list[str] = []
        self.terminals: dict[str, asyncio.Event] = {}
        self.released: set[str] = set()
        self.shown: list[str] = []
        self.agent: CortexAgent
        self.session_id = ""
        self.streaming = 0
        self.tasks: list[asyncio.Task[Any]] = []

    @property
    def session(self) -> Any:
        opened: sessions.OpenSessions = self.agent._sessions
        return opened.get(self.session_id)

    def disk_delay(self) -> float:
        return self.random.choice([0, 0, 0.01, 2.0])

    def delay(self, longest: float) -> float:
        delays = [0, 0.01, 0.1, longest * self.random.random()]
        return self.random.choices(delays, [60, 20, 10, 10])[0]

    async def undisturbed(self, work: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.create_task(work)
        self.tasks.append(task)
        return await asyncio.shield(task)

    def path(self) -> str:
        return self.random.choice(
            [
                "a.txt", "new/b.txt", "../outside/c.txt", "link/d.txt", str(self.outside / "e.txt"),
                f"{self.plan_directory}/01.md", f"{self.plan_directory}/sub/02.md",
                f"{self.plan_directory}/way-out/f.txt", f"{self.plan_directory}/../g.md",
                f"{self.plan_directory}", "\x00",
            ]
        )  # fmt: skip

    def check_write(self, path: Path) -> None:
        """Judges a write by the mode and the links at the moment of its effect."""
        target = Path(os.path.realpath(path))
        in_plans = target.is_relative_to(self.plan_directory)
        in_project = target.is_relative_to(os.path.realpath(self.project))
        mode = self.session.mode
        allowed = {
            Mode.PLAN: in_plans,
            Mode.DEFAULT: in_plans or self.was_approved(target, in_project=in_project),
            Mode.ACCEPT_EDITS: in_plans
            or in_project
            or self.was_approved(target, in_project=in_project),
            Mode.BYPASS: True,
        }[mode]
        if not allowed:
            self.violations.append(f"wrote {target} in {mode}")

    async def maybe_switch_mode(self) -> None:
        """Switches the mode where it hurts most: between a decision and its effect."""
        if self.random.random() < 0.2:
            mode = self.random.choice([Mode.PLAN, *Mode])
            await self.agent.set_session_mode(self.session_id, mode.value)

    def approve(self, path: str, *, always: bool) -> None:
        self.approved.add(os.path.realpath(self.project / path))
        if always:
            self.approved.add("write")

    def was_approved(self, target: Path, *, in_project: bool) -> bool:
        return str(target) in self.approved or (in_project and "write" in self.approved)


class RandomEndpoint:
    """Streams made-up answers; judges whether the disk was ready when it is asked."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def stream(self, ask: events.ModelRequest) -> AsyncGenerator[events.StreamEvent, None]:
        world = self.world
        self.check_disk(world)
        world.streaming += 1
        try:
            if world.streaming > 1:
                world.violations.append("two turns at once")
            for event in self.answer(world.random):
                delay = world.random.choices([0, 0.01, 1, SILENCE + 1], [60, 30, 9, 1])[0]
                await asyncio.sleep(min(delay, SILENCE))
                if delay > SILENCE:
                    raise events.EndpointError("silent for too long")
                yield event
        finally:
            world.streaming -= 1

    def check_disk(self, world: World) -> None:
        record = world.session.record
        path = world.store._directory / f"{world.session_id}.json"
        stored = json.loads(path.read_text())
        if len(stored["history"]) != len(record.history):
            world.violations.append("asked before the disk had everything")

    def answer(self, rng: random.Random) -> Iterator[events.StreamEvent]:
        number = next(self.world.numbers)
        marker = f"<{number}>"
        if rng.random() < 0.2:
            yield events.ThoughtDelta("hm ")
        yield events.TextDelta(marker[:2])
        yield events.TextDelta(marker[2:])
        for index in range(rng.choice([0, 1, 1, 2, 3])):
            name, arguments = self.call(rng)
            yield events.CallStarted(index, rng.choice(["", "call_0", f"c{number}-{index}"]), name)
            text = json.dumps(arguments)
            if rng.random() < 0.1:
                text += "}"
            yield events.CallDelta(index, text[:5])
            yield events.CallDelta(index, text[5:])
        self.world.answered.append(marker)
        yield events.Finished(rng.choice(list(events.Stop)), events.Usage(5, 5))

    def call(self, rng: random.Random) -> tuple[str, dict[str, Any]]:
        path = self.world.path()
        edit: dict[str, Any] = {"path": path, "old_text": "two", "new_text": "two two"}
        return rng.choice(
            [
                ("write_file", {"path": path, "content": "x"}),
                ("write_file", {"path": path, "content": "\ud800"}),
                ("edit_file", {**edit, "replace_all": True}),
                ("edit_file", edit),
                ("read_file", {"path": path}),
                ("list_dir", {"path": path}),
                ("bash", {"command": "sleep 1000"}),
                ("bash", {"command": "sleep 1000", "timeout_seconds": 5}),
                ("update_plan", {"steps": [{"content": "think"}]}),
                ("nonsense", {}),
            ]
        )

    async def models(self) -> list[events.ModelInfo]:
        await asyncio.sleep(self.world.delay(10))
        return [events.ModelInfo("m", 4096)]

    async def close(self) -> None:
        return


class RandomEditor:
    """Answers late, wrongly, or never."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def session_update(self, session_id: str, update: Any, **kwargs: Any) -> None:
        await asyncio.sleep(self.world.delay(3))
        if isinstance(update, acp.schema.AgentMessageChunk):
            self.world.shown.append(update.content.text)

    async def request_permission(
        self, session_id: str, tool_call: Any, options: Any, **kwargs: Any
    ) -> Any:
        rng = self.world.random
        await asyncio.sleep(self.world.delay(500))
        await self.world.maybe_switch_mode()
        choice = rng.choice(["allow"] * 6 + ["allow-always", "reject", "", "error", "never"])
        if choice == "never":
            await asyncio.Event().wait()
        if choice == "error":
            raise acp.RequestError.internal_error({})
        if choice in {"allow", "allow-always"} and "path" in tool_call.raw_input:
            self.world.approve(tool_call.raw_input["path"], always=choice == "allow-always")
        outcome: Any = (
            acp.schema.AllowedOutcome(outcome="selected", option_id=choice)
            if choice
            else acp.schema.DeniedOutcome(outcome="cancelled")
        )
        return acp.RequestPermissionResponse(outcome=outcome)

    # Not `async def`: what is judged is the moment at which the agent acts.
    def write_text_file(self, session_id: str, path: str, content: str) -> Coroutine[Any, Any, Any]:
        self.world.check_write(Path(path))

        async def write() -> Any:
            await asyncio.sleep(self.world.delay(40))
            if self.world.random.random() < 0.2:
                raise acp.RequestError.internal_error({})
            return acp.WriteTextFileResponse()

        return write()

    async def read_text_file(self, session_id: str, path: str, **kwargs: Any) -> Any:
        await asyncio.sleep(self.world.delay(40))
        await self.world.maybe_switch_mode()
        if self.world.random.random() < 0.5:
            raise acp.RequestError.resource_not_found(path)
        return acp.ReadTextFileResponse(content="one two three\n")

    def create_terminal(self, session_id: str, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        if self.world.session.mode is Mode.PLAN:
            self.world.violations.append("ran a command in plan mode")

        async def create() -> Any:
            if self.world.random.random() < 0.1:
                raise ConnectionError  # a refusal would start a real process instead
            name = f"t{next(self.world.numbers)}"
            await asyncio.sleep(self.world.random.choice([0, 0, 2.5]))
            self.world.terminals[name] = asyncio.Event()
            return acp.CreateTerminalResponse(terminal_id=name)

        # An editor goes on opening a terminal although nobody waits for the answer any more.
        return self.world.undisturbed(create())

    async def wait_for_terminal_exit(self, session_id: str, terminal_id: str) -> Any:
        ended = self.world.terminals[terminal_id]
        if self.world.random.random() < 0.7:
            self.world.loop.call_later(self.world.delay(1000), ended.set)
        await ended.wait()
        return acp.WaitForTerminalExitResponse(exit_code=0)

    async def terminal_output(self, session_id: str, terminal_id: str) -> Any:
        await asyncio.sleep(self.world.delay(2))
        return acp.TerminalOutputResponse(output="out", truncated=False)

    async def kill_terminal(self, session_id: str, terminal_id: str) -> None:
        self.world.terminals[terminal_id].set()
        await asyncio.sleep(self.world.delay(2))

    async def release_terminal(self, session_id: str, terminal_id: str) -> None:
        self.world.terminals[terminal_id].set()
        self.world.released.add(terminal_id)
        await asyncio.sleep(self.world.delay(2))


async def schedule(world: World) -> None:
    """One session's life, and what must be true of it in the end."""
    rng = world.random
    settings = Settings(max_rounds=rng.choice([1, 3, 10]))
    surroundings = Surroundings(
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
    for seed in range(share * 200, share * 200 + 200):
        run_schedule(seed, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("share", range(20))
def test_thousands_of_schedules(share: int, monkeypatch: pytest.MonkeyPatch):
    for seed in range(10_000 + share * 250, 10_000 + share * 250 + 250):
        run_schedule(seed, monkeypatch)
