"""Two workers, one of which is struck in the middle of 16 greedy streams.

The same scenario for every engine, on a GPU too (`gpu/faults.py`). What it asserts holds on any
machine; how long things took, and how many streams are equal to unbroken ones, it tells.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from tests.doubles.neuron_injecting_worker import DEVICE_ERROR, EXCEPTION

STREAMS = 16
BESIDE = 4
LONGEST_SECONDS = 100.0

FAULTS = {
    "kill -9": signal.SIGKILL,
    "kill -STOP": signal.SIGSTOP,
    "an exception": EXCEPTION,
    "a device error": DEVICE_ERROR,
}


@dataclasses.dataclass(frozen=True)
class Said:
    """One stream that has ended.

    Attributes:
        token_ids: all of them, in order.
        resumed: it outlived its worker.
        times: of its messages, seconds on the monotonic clock.
        margins: how much likelier each choice was than the second best, in log odds, where
            somebody asked.
    """

    token_ids: list[int]
    resumed: bool
    times: list[float]
    margins: list[float]


@dataclasses.dataclass(frozen=True)
class Side:
    """A model on one of the two workers.

    Attributes:
        stub: of the neuron that has it.
        model: its name.
    """

    stub: Any
    model: str

    async def standing(self) -> Standing:
        """How it stands now."""
        answer = await self.stub.GetStatus(neuron.GetStatusRequest())
        return Standing.of(answer.status, self.model)


@dataclasses.dataclass(frozen=True)
class Standing:
    """How a model stands: its worker's process, 0 for none, and its own state.

    Attributes:
        rank_pids: its worker's other processes.
    """

    pid: int
    state: model.InstanceState.ValueType
    rank_pids: tuple[int, ...] = ()

    @classmethod
    def of(cls, status: neuron.NeuronStatus, name: str) -> Standing:
        """Reads it from a status."""
        (one,) = [each for each in status.report.instances if each.spec.model == name]
        (worker,) = [
            each
            for each in status.report.workers
            if not one.spec.device_ids or set(each.device_ids) == set(one.spec.device_ids)
        ]
        return cls(worker.pid, one.state, tuple(worker.rank_pids))

    @property
    def is_ready(self) -> bool:
        """It serves."""
        return self.pid != 0 and self.state == model.INSTANCE_STATE_READY


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a fault cost; times in seconds.

    Attributes:
        equal: streams that are equal to unbroken ones.
        parted_at: of each other one, the margin of the choice at which it went another way.
        beside_ties: streams of the other worker that parted from unbroken ones at a tie.
        beside_tokens: made by the other worker between the fault and the recovery.
        calm_gap: longest gap of the other worker's streams when nothing happened.
    """

    fault: str
    equal: int
    parted_at: list[float]
    is_new_process: bool
    ready_again: float
    streams_ended: float
    resumed: int
    beside_ties: int
    beside_tokens: int
    beside_gap: float
    calm_gap: float

    def __str__(self) -> str:
        ready = f"READY again after {self.ready_again:.2f} s in another process"
        return (
            f"{self.fault}: {ready if self.is_new_process else 'READY all the time'};"
            f" {self.equal} of {STREAMS} streams equal, the last one over after"
            f" {self.streams_ended:.2f} s, {self.resumed} resumed; beside it {self.beside_tokens} tokens came meanwhile,"
            f" longest gap {self.beside_gap:.3f} s, {self.calm_gap:.3f} s undisturbed"
        )


class Stage:
    """A model on each of two devices, and what its streams say when nothing happens."""

    def __init__(
        self,
        *,
        victim: Side,
        bystander: Side,
        tokens: int,
        clear_margin: float = 0.0,
        tie: float = 0.0,
    ) -> None:
        """Has learnt nothing yet.

        Args:
            victim: struck.
            bystander: must not notice.
            tokens: of every stream.
            clear_margin: only prompts whose every choice is clearer than this are used, on either
                side.
            tie: streams of the bystander may part from unbroken ones where the best two tokens were
                closer than this: the shape of the batch may round either way.
        """
        self._victim = victim
        self._bystander = bystander
        self._tokens = tokens
        self._clear_margin = clear_margin
        self._tie = tie
        self._unbroken: dict[int, Said] = {}
        self._beside: dict[int, Said] = {}
        self._calm_gap = 0.0

    async def rehearse(self) -> None:
        """Learns what the streams say.

        A resumed stream reads in one pass what was decoded token by token before. Where two tokens
        are as good as equally likely, the rounding of either way may decide between them; prompts
        without such choices show that nothing else does.
        """
        self._unbroken = await self._clear(self._victim, STREAMS)
        self._beside = await self._clear(self._bystander, BESIDE)
        # Again, as it will be: without the work that tells margins.
        again = await self._all(self._bystander, self._beside)
        self._calm_gap = max(map(_longest_gap, again.values()))

    async def _clear(self, side: Side, count: int) -> dict[int, Said]:
        """So many prompts whose every choice is clear, and what is said to them."""
        found: dict[int, Said] = {}
        candidates = itertools.count()
        while len(found) < count:
            tried = list(itertools.islice(candidates, count))
            assert tried[0] < 40 * STREAMS, "hardly a prompt of this model is clear"
            said = await self._all(side, tried, top_logprobs=2)
            clear = [one for one in tried if min(said[one].margins) >= self._clear_margin]
            found |= {prompt: said[prompt] for prompt in clear[: count - len(found)]}
        return found

    async def strike(self, fault: str, *, rank: int = 0) -> Outcome:
        """Strikes the victim's worker when a sixth of all tokens are there, and looks on.

        Args:
            fault: a key of `FAULTS`.
            rank: which of the worker's processes.

        Raises:
            AssertionError: a stream was cut, or the other worker noticed.
        """
        before, other = await self._victim.standing(), await self._bystander.standing()
        victims = _Flow(STREAMS * self._tokens // 6)  # clients lag behind the worker
        beside = _Flow()
        seen: list[tuple[float, Standing]] = []
        tasks = [
            asyncio.create_task(self._follow(seen)),
            *[asyncio.create_task(self._repeat(prompt, beside)) for prompt in self._beside],
        ]
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                running = asyncio.create_task(
                    self._all(self._victim, self._unbroken, note=victims.note)
                )
                await victims.reached.wait()
                struck, had = time.monotonic(), beside.tokens
                os.kill((before.pid, *before.rank_pids)[rank], FAULTS[fault])
                answers = await running
                ended = time.monotonic()
                while not (after := await self._victim.standing()).is_ready:
                    await asyncio.sleep(0.02)
                came = beside.tokens - had
        finally:
            for task in tasks:
                task.cancel()
            endings = await asyncio.gather(*tasks, return_exceptions=True)

        assert all(isinstance(one, asyncio.CancelledError) for one in endings), endings
        assert came > 0, "the other worker's streams stood still"
        assert await self._bystander.standing() == other
        returned = [at for at, one in seen if at > struck and one == after]
        parted_at = [
            margin
            for prompt, one in answers.items()
            if (margin := _parts_at(self._unbroken[prompt], one)) is not None
        ]
        return Outcome(
            fault,
            equal=len(answers) - len(parted_at),
            parted_at=parted_at,
            is_new_process=after.pid != before.pid,
            ready_again=max(0.0, returned[0] - struck) if returned else 0.0,
            streams_ended=ended - struck,
            resumed=sum(one.resumed for one in answers.values()),
            beside_ties=beside.ties,
            beside_tokens=came,
            beside_gap=beside.longest_gap,
            calm_gap=self._calm_gap,
        )

    async def _follow(self, seen: list[tuple[float, Standing]]) -> None:
        """Notes how the victim stands, change by change."""
        call = self._victim.stub.WatchStatus(neuron.WatchStatusRequest())
        try:
            async for answer in call:
                now = Standing.of(answer.status, self._victim.model)
                if not seen or seen[-1][1] != now:
                    seen.append((time.monotonic(), now))
        finally:
            call.cancel()

    async def _repeat(self, prompt: int, flow: _Flow) -> None:
        """Streams beside the victim, again and again, and always the same."""
        while True:
            said = await self._one(self._bystander, prompt, note=flow.note)
            margin = _parts_at(self._beside[prompt], said)
            assert margin is None or margin < self._tie, margin
            assert not said.resumed
            flow.ties += margin is not None
            flow.longest_gap = max(flow.longest_gap, _longest_gap(said))

    async def _all(
        self,
        side: Side,
        prompts: Iterable[int],
        *,
        top_logprobs: int | None = None,
        note: Callable[[int], None] = lambda _: None,
    ) -> dict[int, Said]:
        streams = {
            prompt: asyncio.create_task(
                self._one(side, prompt, top_logprobs=top_logprobs, note=note)
            )
            for prompt in prompts
        }
        await asyncio.gather(*streams.values())
        return {prompt: stream.result() for prompt, stream in streams.items()}

    async def _one(
        self,
        side: Side,
        prompt: int,
        *,
        top_logprobs: int | None = None,
        note: Callable[[int], None] = lambda _: None,
    ) -> Said:
        request = generation.GenerateRequest(
            model=side.model,
            token_ids=generation.TokenIds(
                ids=[20 + prompt % 60, 20 + prompt // 60, *range(20, 40)]
            ),
            sampling=generation.Sampling(temperature=0),
            stop=generation.StopRules(max_tokens=self._tokens, ignore_eos=True),
            top_logprobs=top_logprobs,
        )
        said: list[int] = []
        times: list[float] = []
        margins: list[float] = []
        finished: generation.GenerationFinished | None = None
        async for answer in side.stub.Generate(request):
            if answer.HasField("text"):
                times.append(time.monotonic())
                said.extend(answer.text.token_ids)
                margins += [_margin(one) for one in answer.text.logprobs]
                note(len(answer.text.token_ids))
            elif answer.HasField("finished"):
                finished = answer.finished
        assert finished is not None
        assert len(said) == self._tokens == finished.usage.completion_tokens
        return Said(said, finished.resumed, times, margins)


class _Flow:
    """Tokens of several streams as they come."""

    def __init__(self, threshold: int = 0) -> None:
        self._threshold = threshold
        self.reached = asyncio.Event()
        self.tokens = 0
        self.ties = 0
        self.longest_gap = 0.0

    def note(self, tokens: int) -> None:
        self.tokens += tokens
        if self.tokens >= self._threshold:
            self.reached.set()


def _parts_at(unbroken: Said, said: Said) -> float | None:
    """The margin of the first choice that came out otherwise; None where all are the same."""
    pairs = zip(unbroken.token_ids, said.token_ids, strict=True)
    at = next((at for at, (one, other) in enumerate(pairs) if one != other), None)
    return None if at is None else unbroken.margins[at]


def _margin(one: generation.TokenLogprob) -> float:
    """How much likelier the best choice was than the second."""
    return one.alternatives[0].logprob - one.alternatives[1].logprob


def _longest_gap(said: Said) -> float:
    return max((b - a for a, b in itertools.pairwise(said.times)), default=0.0)
