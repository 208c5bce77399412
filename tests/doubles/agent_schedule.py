"""One schedule of an agent's life: an endpoint and an editor that answer at random."""

import asyncio
import itertools
import json
import os
import random
from collections.abc import AsyncGenerator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import acp
import acp.schema

from services.agent.agent import CortexAgent
from services.agent.core.modes import Mode
from services.agent.core.plan_dir import PlanDirectory
from services.agent.endpoints import endpoint as events
from services.agent.session_service import sessions
from services.agent.storage import summary
from services.agent.storage.store import SessionStore
from tests.doubles.virtual_time import SlowExecutor, VirtualTimeLoop

SILENCE = 300.0  # after which a real client gives up on an endpoint


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
            is_summary = ask.system == summary.SYSTEM
            answer = self.summary if is_summary else self.answer
            for event in answer(world.random):
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

    def summary(self, rng: random.Random) -> Iterator[events.StreamEvent]:
        yield events.TextDelta(rng.choice(["", "We did this and that.", "word " * 5000]))
        yield events.Finished(rng.choice(list(events.FinishReason)), events.TokenUsage(5, 5))

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
        yield events.Finished(rng.choice(list(events.FinishReason)), events.TokenUsage(5, 5))

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

    async def models(self) -> list[events.EndpointModel]:
        await asyncio.sleep(self.world.delay(10))
        return [events.EndpointModel("m", 4096)]

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
