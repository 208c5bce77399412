"""A neuron whose generations follow a script: every fault that a real one has only by chance."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence

from prometheus_client import CollectorRegistry

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import neuron_service_pb2_grpc as neuron_grpc
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.address import Address
from services.backplane.errors import FleetError, Reason
from services.backplane.metrics import RpcMetrics
from services.backplane.rpc.server import Server
from services.backplane.rpc.status import pack

Event = generation.GenerateResponse


def text(piece: str, tokens: int = 1) -> Event:
    return Event(text=generation.TextDelta(text=piece, token_ids=range(tokens)))


def reasoning(piece: str) -> Event:
    return Event(reasoning=generation.ReasoningDelta(text=piece, token_ids=[1]))


def tool_call(index: int, arguments: str, *, call_id: str = "", name: str = "") -> Event:
    return Event(
        tool_call=generation.ToolCallDelta(
            index=index, call_id=call_id, name=name, arguments_json=arguments, token_ids=[1]
        )
    )


def queued(position: int) -> Event:
    return Event(queued=generation.GenerationQueued(position=position))


@dataclasses.dataclass
class Script:
    """What one generation does.

    Attributes:
        events: the deltas, in order; by default two words.
        counting: waited for before anything is said, as when a long prompt is counted.
        refuse: fails at once, before `started`.
        silent: never says anything.
        fail_after: fails with `fail` behind so many deltas.
        die_after: the whole neuron drops dead behind so many deltas.
        gap: seconds before each delta.
        gate: waited for before each delta behind the first.
        reason: how it ends.
        joules: that it says it took; None: it does not.
    """

    events: Sequence[Event] = (text("Hello"), text(" world"))
    counting: asyncio.Event | None = None
    refuse: FleetError | None = None
    silent: bool = False
    fail_after: int | None = None
    fail: FleetError = dataclasses.field(
        default_factory=lambda: FleetError(Reason.ENGINE_FAILED, "The engine stumbled.")
    )
    die_after: int | None = None
    gap: float = 0.0
    gate: asyncio.Event | None = None
    reason: generation.FinishReason.ValueType = generation.FINISH_REASON_END_OF_TURN
    joules: float | None = None


class ScriptedNeuron(neuron_grpc.NeuronServiceServicer):
    """Serves NeuronService on loopback; scripts are taken in turn, the last one stays."""

    def __init__(self, name: str, models: Sequence[str] = ("tiny",)) -> None:
        self.name = name
        self.resumes = True  # goes on behind tokens of others, and tells its own
        self.models = list(models)
        self.longest_token_bytes = 0  # not known
        self.state = model_pb2.INSTANCE_STATE_READY
        self.reports = 0
        self.scripts: list[Script] = [Script()]
        self.requests: list[generation.GenerateRequest] = []
        self.counted: list[neuron.CountTokensRequest] = []
        self.embedded: list[neuron.EmbedRequest] = []
        self.unary_refusals: list[FleetError] = []
        self.cancelled: list[str] = []
        self.tells_cache = False
        self.cache_changes: asyncio.Queue[neuron.CacheChange] = asyncio.Queue()
        self.sessions = 0
        self.messages_in = 0
        self.credits: list[int] = []
        self.active = 0
        self.changed = asyncio.Condition()
        self.address = ""
        self._server: Server | None = None
        self._dead: asyncio.Task[None] | None = None

    # Life.

    async def start(self, address: str = "127.0.0.1:0") -> str:
        metrics = RpcMetrics(CollectorRegistry(), "neuron")
        self._server = Server(service_names=["cortex.v1.NeuronService"], metrics=metrics)
        self._server.add(neuron_grpc.add_NeuronServiceServicer_to_server, self)
        self.address = str(await self._server.start(Address.parse(address)))
        return self.address

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None
        if self._dead is not None:
            await self._dead

    def instance_id(self, model: str) -> str:
        return f"{self.name}/{model}"

    def described(self, *, lost: bool = False, draining: bool = False) -> registry.Neuron:
        self.reports += 1
        made = registry.Neuron(lost=lost)
        made.identity.name = self.name
        made.identity.incarnation_id = "1"
        made.identity.address = self.address
        made.identity.features.extend(["session", "resume"] if self.resumes else ["session"])
        if self.tells_cache:
            made.identity.features.append("cache")
        made.report.sequence = self.reports
        made.report.draining = draining
        for model in self.models:
            instance = made.report.instances.add(
                instance_id=self.instance_id(model),
                state=self.state,
                max_context_tokens=2048,
                longest_token_bytes=self.longest_token_bytes,
            )
            instance.spec.model = model
        return made

    async def until(self, holds: object, seconds: float = 10.0) -> None:
        """Waits until a condition on this neuron holds."""
        assert callable(holds)
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(holds)

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    # What generations do.

    async def _play(self, request: generation.GenerateRequest) -> AsyncIterator[Event]:
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        self.requests.append(request)
        self.active += 1
        ended = False
        try:
            await self._tell()
            async for event in self._follow(script, request):
                yield event
            ended = True
        except FleetError:
            ended = True
            raise
        finally:
            self.active -= 1
            if not ended:
                self.cancelled.append(request.request_id)
            await asyncio.shield(self._tell())

    async def _follow(
        self, script: Script, request: generation.GenerateRequest
    ) -> AsyncIterator[Event]:
        if script.silent:
            await asyncio.Event().wait()
        if script.counting is not None:
            await script.counting.wait()
        if script.refuse is not None:
            raise script.refuse
        started = generation.GenerationStarted(
            instance_id=request.instance_id,
            prompt_tokens=7,
            cached_prompt_tokens=3,
            fingerprint="f1",
        )
        yield Event(started=started)
        tokens = len(request.resume_from.ids)
        for index, event in list(enumerate(script.events))[tokens:]:
            self._maybe_fail(script, index)
            if script.die_after == index:
                await self._die()
            if script.gap:
                await asyncio.sleep(script.gap)
            if index and script.gate is not None:
                await script.gate.wait()
            tokens += 1
            yield event
        self._maybe_fail(script, len(script.events))
        if script.die_after == len(script.events):
            await self._die()
        usage = generation.Usage(prompt_tokens=7, cached_prompt_tokens=3, completion_tokens=tokens)
        timings = generation.Timings(joules=script.joules)
        end = generation.GenerationFinished(reason=script.reason, usage=usage, timings=timings)
        yield Event(finished=end)

    @staticmethod
    def _maybe_fail(script: Script, index: int) -> None:
        if script.fail_after == index:
            raise script.fail

    async def _die(self) -> None:
        async def die() -> None:
            if self._server is not None:
                server, self._server = self._server, None
                await server.stop(0)

        self._dead = asyncio.create_task(die())
        await asyncio.Event().wait()

    # The service.

    async def Generate(self, request, context):
        async for event in self._play(request):
            yield event

    async def Session(self, request_iterator, context):  # type: ignore[override] # writes itself
        self.sessions += 1
        session = _Session(self)
        reading = asyncio.create_task(session.read(request_iterator))
        try:
            while True:
                batch = await session.next_batch()
                await context.write(batch)
        finally:
            reading.cancel()
            await session.close()

    async def WatchCache(self, request, context):
        while True:
            yield neuron.WatchCacheResponse(changes=[await self.cache_changes.get()])

    async def CountTokens(self, request, context):
        self.counted.append(request)
        if self.unary_refusals:
            raise self.unary_refusals.pop(0)
        return neuron.CountTokensResponse(tokens=11, max_context_tokens=2048)

    async def Embed(self, request, context):
        self.embedded.append(request)
        if self.unary_refusals:
            raise self.unary_refusals.pop(0)
        vectors = [neuron.Embedding(values=[0.5, 0.25]) for _ in request.inputs]
        return neuron.EmbedResponse(
            embeddings=vectors,
            prompt_tokens=3 if vectors else 0,
            instance_id=request.instance_id,
        )


class _Session:
    """The neuron's end of one Session: packs what has accumulated while a write was out."""

    def __init__(self, owner: ScriptedNeuron) -> None:
        self._owner = owner
        self._batch = neuron.SessionResponse()
        self._ready = asyncio.Event()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._credit: dict[int, int] = {}
        self._credited = asyncio.Condition()

    async def read(self, requests: AsyncIterator[neuron.SessionRequest]) -> None:
        async for message in requests:
            self._owner.messages_in += 1
            for start in message.starts:
                self._credit[start.sequence_id] = start.credit_tokens
                self._tasks[start.sequence_id] = asyncio.create_task(self._run(start))
            for sequence_id in message.cancelled_sequence_ids:
                task = self._tasks.pop(sequence_id, None)
                if task is not None:
                    task.cancel()
            async with self._credited:
                for credit in message.credits:
                    self._owner.credits.append(credit.tokens)
                    if credit.sequence_id in self._credit:
                        self._credit[credit.sequence_id] += credit.tokens
                self._credited.notify_all()

    async def next_batch(self) -> neuron.SessionResponse:
        await self._ready.wait()
        self._ready.clear()
        batch, self._batch = self._batch, neuron.SessionResponse()
        return batch

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, start: neuron.SessionStart) -> None:
        try:
            async for event in self._owner._play(start.request):
                await self._send(start.sequence_id, event)
        except FleetError as error:
            self._batch.ends.add(sequence_id=start.sequence_id, failed=pack(error))
        finally:
            self._tasks.pop(start.sequence_id, None)
            self._credit.pop(start.sequence_id, None)
            self._ready.set()

    async def _send(self, sequence_id: int, event: Event) -> None:
        kind = event.WhichOneof("event")
        if kind in {"text", "reasoning", "tool_call"}:
            delta = getattr(event, kind)
            async with self._credited:
                await self._credited.wait_for(lambda: self._credit[sequence_id] > 0)
                self._credit[sequence_id] -= len(delta.token_ids)
        if kind == "finished":
            self._batch.ends.add(sequence_id=sequence_id, finished=event.finished)
        elif kind == "text" and not event.text.logprobs and not self._has_event(sequence_id):
            self._batch.text_sequence_ids.append(sequence_id)
            self._batch.texts.append(event.text.text)
            self._batch.text_token_counts.append(len(event.text.token_ids))
            if self._owner.resumes:
                self._batch.text_token_ids.extend(event.text.token_ids)
        else:
            self._move_texts(sequence_id)
            self._batch.events.add(sequence_id=sequence_id, event=event)
        self._ready.set()

    def _has_event(self, sequence_id: int) -> bool:
        return any(
            item.sequence_id == sequence_id
            and item.event.WhichOneof("event") in {"text", "reasoning", "tool_call"}
            for item in self._batch.events
        )

    def _move_texts(self, sequence_id: int) -> None:
        """A sequence with any delta among the events has all of its deltas there."""
        columns = list(
            zip(
                self._batch.text_sequence_ids,
                self._batch.texts,
                self._batch.text_token_counts,
                strict=True,
            )
        )
        del self._batch.text_sequence_ids[:]
        del self._batch.texts[:]
        del self._batch.text_token_counts[:]
        del self._batch.text_token_ids[:]
        for other, piece, tokens in columns:
            if other == sequence_id:
                self._batch.events.add(sequence_id=other, event=text(piece, tokens))
            else:
                self._batch.text_sequence_ids.append(other)
                self._batch.texts.append(piece)
                self._batch.text_token_counts.append(tokens)
                if self._owner.resumes:
                    self._batch.text_token_ids.extend(range(tokens))
