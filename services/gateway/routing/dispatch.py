"""Runs requests on instances: chooses one, starts there, and tries another after a failure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Final, TypeVar

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.calls import unary
from services.backplane.rpc.written_text import most_counted
from services.gateway.dialects.lookup import ComparedInstance
from services.gateway.routing.candidates import InstanceCandidate, Outstanding
from services.gateway.routing.comparing import compare
from services.gateway.routing.holdings import Holdings
from services.gateway.routing.place import Placer, WantedModel
from services.gateway.routing.prefix import Trail, TrailOfRequest
from services.gateway.routing.retry import RetryState, ServedBy
from services.gateway.routing.sinks import RestartableSink, UnarySink
from services.gateway.streaming.at_once import some_at_once
from services.gateway.streaming.choice import ChoiceSink
from services.gateway.transports.pool import NeuronLinks

Result = TypeVar("Result")

# Generations of one request that run or wait on neurons at one time; half of a queue there.
_AT_ONCE: Final = 32


class Dispatch:
    """Runs generations, counts and embeddings on the instances of the fleet.

    Args:
        placer: finds the instance.
        links: connections to the neurons.
        outstanding: kept up to date with what runs where.
        holdings: what the instances hold; told of how much they had.
        attempts: most instances that one request is tried on.
    """

    def __init__(
        self,
        *,
        placer: Placer,
        links: NeuronLinks,
        outstanding: Outstanding,
        holdings: Holdings,
        attempts: int,
    ) -> None:
        self._placer = placer
        self._links = links
        self._outstanding = outstanding
        self._holdings = holdings
        self._attempts = attempts

    def generate(
        self,
        name: str,
        requests: Sequence[generation.GenerateRequest],
        sinks: Sequence[ChoiceSink],
        record: ServedBy,
        *,
        keep_alive_seconds: float | None = None,
        characters: int = 0,
    ) -> Coroutine[object, object, None]:
        """Runs every choice of a request to its end, no more than some of them at once.

        Cancelling it cancels every generation on its neuron.

        Args:
            name: model or alias.
            requests: one per choice; model and instance are filled in here.
            sinks: take the events, one per request.
            record: told where the choices ran.
            keep_alive_seconds: how long the model should stay loaded after this; None: the fleet's
                policy decides.
            characters: that the longest prompt has at least, where it may be too long.

        Raises:
            FleetError: some choice could not be finished; the others are cancelled.
        """

        def run(index: int) -> Coroutine[object, object, None]:
            return self._generate(
                name,
                requests[index],
                sinks[index],
                record,
                keep_alive_seconds,
                characters=characters,
            )

        return run(0) if len(requests) == 1 else some_at_once(run, len(requests), most=_AT_ONCE)

    async def count_tokens(
        self, request: neuron.CountTokensRequest, record: ServedBy, *, characters: int = 0
    ) -> neuron.CountTokensResponse:
        """Counts a prompt's tokens; `model` may be an alias. `record` is told where.

        Args:
            request: has the prompt.
            record: told where it was counted.
            characters: that the prompt has at least, where it may be too long.

        Raises:
            FleetError: as for a generation.
        """

        async def attempt(target: InstanceCandidate) -> neuron.CountTokensResponse:
            with record.attempt(target, "CountTokens") as hop:
                target.refuse_endless(characters, most_counted(target.max_context_tokens))
                request.model, request.instance_id = target.model, target.instance_id
                stub = self._links.to(target.address, target.neuron).stub
                return await unary(stub.CountTokens(request, metadata=hop.metadata))

        wanted = WantedModel(request.model, request_id="", trace=record.trace)
        return await self._run(wanted, attempt, UnarySink())

    async def embed(self, request: neuron.EmbedRequest, record: ServedBy) -> neuron.EmbedResponse:
        """Embeds texts; `model` may be an alias. `record` is told where.

        Raises:
            FleetError: as for a generation.
        """

        async def attempt(target: InstanceCandidate) -> neuron.EmbedResponse:
            with record.attempt(target, "Embed") as hop:
                request.model, request.instance_id = target.model, target.instance_id
                stub = self._links.to(target.address, target.neuron).stub
                return await unary(stub.Embed(request, metadata=hop.metadata))

        wanted = WantedModel(request.model, request.request_id, trace=record.trace)
        return await self._run(wanted, attempt, UnarySink())

    async def compare(self, request: generation.GenerateRequest) -> list[ComparedInstance]:
        """What each loaded instance of a model holds of a prompt; `model` may be an alias.

        Raises:
            FleetError: MODEL_UNKNOWN.
        """
        candidates = self._placer.candidates(request.model)
        return await compare(candidates, request, links=self._links, holdings=self._holdings)

    def _generate(
        self,
        name: str,
        request: generation.GenerateRequest,
        sink: ChoiceSink,
        record: ServedBy,
        keep_alive_seconds: float | None,
        *,
        characters: int,
    ) -> Coroutine[object, object, None]:
        trail = TrailOfRequest(request)
        wanted = WantedModel(
            name,
            request_id=request.request_id,
            principal=request.principal,
            trail=trail,
            keep_alive_seconds=keep_alive_seconds,
            trace=record.trace,
        )

        async def attempt(target: InstanceCandidate) -> None:
            with record.attempt(target, "Session") as hop:
                if hop.traceparent:
                    request.traceparent = hop.traceparent
                await self._attempt(request, sink, trail, target, characters=characters)

        return self._run(wanted, attempt, sink)

    def _learn(self, trail: Trail, foretold: int, sink: ChoiceSink) -> None:
        """Takes in how much of a prompt was in the cache where it ran."""
        started = sink.started_event
        if started is not None:
            self._holdings.learn(
                trail.whose,
                size_bytes=trail.size_bytes,
                tokens=started.prompt_tokens,
                foretold=min(foretold, started.prompt_tokens - 1),
                found=started.cached_prompt_tokens,
            )

    async def _attempt(
        self,
        request: generation.GenerateRequest,
        sink: ChoiceSink,
        trail: TrailOfRequest,
        target: InstanceCandidate,
        *,
        characters: int,
    ) -> None:
        """Runs a generation on one instance, from its beginning or behind what is known of it.

        Raises:
            FleetError: why it failed there.
        """
        if characters:
            target.refuse_endless(characters, target.max_context_tokens)
        request.model, request.instance_id = target.model, target.instance_id
        made, foretold = trail.made, 0
        if made is not None:
            request.marks.CopyFrom(made.marks())
            foretold = self._holdings.foretold(made, target.instance_id)
        goes_on = bool(sink.made) and target.resumes and sink.may_go_on
        while True:
            if goes_on:
                _resume(request, sink)
            ended = sink.begin(goes_on=goes_on)
            sink.tells_tokens = target.resumes
            try:
                sink.attach(self._links.to(target.address, target.neuron).start(request, sink))
                error = await ended
            finally:
                sink.detach()
                if goes_on:
                    request.ClearField("resume_from")
                    request.ClearField("resume_fingerprint")
            if made is not None:
                self._learn(made, foretold, sink)
            if error is None:
                return
            if not (goes_on and _may_begin_anew(error, sink)):
                raise error
            goes_on = False

    async def _run(
        self,
        wanted: WantedModel,
        attempt: Callable[[InstanceCandidate], Awaitable[Result]],
        sink: RestartableSink,
    ) -> Result:
        """Chooses an instance, tries it, and tries another as long as `RetryState` lets it.

        Raises:
            FleetError: of the last attempt, or why there is no instance to try.
        """
        # The everyday case: a loaded instance serves it at the first attempt.
        target = self._placer.loaded(wanted, None)
        if wanted.keep_alive_seconds is not None and target is not None:
            self._placer.tell_keep_alive(wanted)
        retry: RetryState | None = None
        while True:
            if target is None:
                retry = retry or RetryState(self._attempts)
                target = await self._placer.place(wanted, retry, sink)
            if retry is not None and retry.last is not None and not _may_take(target, sink):
                raise retry.last
            made = len(sink.made)
            self._outstanding.take(target.instance_id)
            try:
                return await attempt(target)
            except FleetError as error:
                retry = retry or RetryState(self._attempts)
                retry.note(
                    target.instance_id, target.report, error, made_tokens=len(sink.made) > made
                )
                if not (sink.may_restart or sink.may_go_on) or not retry.may_go_on(error):
                    raise
            finally:
                self._outstanding.give_back(target.instance_id)
            target = self._placer.loaded(wanted, retry)


def _may_take(target: InstanceCandidate, sink: RestartableSink) -> bool:
    """True where a request that has failed elsewhere may be tried there."""
    return sink.may_restart or (sink.may_go_on and target.resumes)


def _may_begin_anew(error: FleetError, sink: ChoiceSink) -> bool:
    """True where an instance refused the tokens of another, and the client has seen none of them.

    It has other files of the model, as all have behind an update: it can give an answer of its own.
    """
    return error.reason is Reason.INSTANCE_MISMATCH and sink.may_restart


def _resume(request: generation.GenerateRequest, sink: ChoiceSink) -> None:
    """Has a request go on behind what the client was told."""
    request.resume_from.ids[:] = sink.made
    if sink.started_event is not None:
        request.resume_fingerprint = sink.started_event.fingerprint
