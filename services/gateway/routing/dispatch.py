"""Runs requests on instances: chooses one, starts there, and tries another after a failure."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.calls import unary
from services.gateway.routing.choose import InstanceCandidate
from services.gateway.routing.place import Placer, WantedModel
from services.gateway.routing.prefix import trail_of
from services.gateway.routing.retry import RetryState, ServedBy
from services.gateway.streaming.choice import ChoiceSink
from services.gateway.streaming.placement_status import PlacementSink
from services.gateway.transports.pool import NeuronLinks

Result = TypeVar("Result")

# Generations of one request that run or wait on neurons at one time; half of a queue there.
_AT_ONCE: Final = 32


class _RestartableSink(PlacementSink, Protocol):
    """What `Dispatch` asks of a request besides: may it run a second time, and from where."""

    @property
    def may_restart(self) -> bool: ...

    @property
    def may_go_on(self) -> bool: ...

    @property
    def made(self) -> Sequence[int]: ...


class Dispatch:
    """Runs generations, counts and embeddings on the instances of the fleet.

    Args:
        placer: finds the instance.
        links: connections to the neurons.
        outstanding: kept up to date with what runs where.
        attempts: most instances that one request is tried on.
    """

    def __init__(
        self, *, placer: Placer, links: NeuronLinks, outstanding: Outstanding, attempts: int
    ) -> None:
        self._placer = placer
        self._links = links
        self._outstanding = outstanding
        self._attempts = attempts

    async def generate(
        self,
        name: str,
        requests: Sequence[generation.GenerateRequest],
        sinks: Sequence[ChoiceSink],
        record: ServedBy,
        *,
        keep_alive_seconds: float | None = None,
    ) -> None:
        """Runs every choice of a request to its end, no more than some of them at once.

        Cancelling it cancels every generation on its neuron.

        Args:
            name: model or alias.
            requests: one per choice; model and instance are filled in here.
            sinks: take the events, one per request.
            record: told where the choices ran.
            keep_alive_seconds: how long the model should stay loaded after this; None: the fleet's
                policy decides.

        Raises:
            FleetError: some choice could not be finished; the others are cancelled.
        """
        if len(requests) == 1:
            await self._generate(name, requests[0], sinks[0], record, keep_alive_seconds)
            return
        places = asyncio.Semaphore(_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group:
                for request, sink in zip(requests, sinks, strict=True):
                    await places.acquire()
                    task = group.create_task(
                        self._generate(name, request, sink, record, keep_alive_seconds)
                    )
                    task.add_done_callback(lambda _: places.release())
        except BaseExceptionGroup as failures:
            # `except*` would put what is raised here into a group again before Python 3.11.4
            raise _first(failures) from None

    async def count_tokens(
        self, request: neuron.CountTokensRequest, record: ServedBy
    ) -> neuron.CountTokensResponse:
        """Counts a prompt's tokens; `model` may be an alias. `record` is told where.

        Raises:
            FleetError: as for a generation.
        """

        async def attempt(target: InstanceCandidate) -> neuron.CountTokensResponse:
            record.attempt(target)
            request.model, request.instance_id = target.model, target.instance_id
            return await unary(
                self._links.to(target.address, target.neuron).stub.CountTokens(request)
            )

        return await self._run(WantedModel(request.model, request_id=""), attempt, _UnarySink())

    async def embed(self, request: neuron.EmbedRequest, record: ServedBy) -> neuron.EmbedResponse:
        """Embeds texts; `model` may be an alias. `record` is told where.

        Raises:
            FleetError: as for a generation.
        """

        async def attempt(target: InstanceCandidate) -> neuron.EmbedResponse:
            record.attempt(target)
            request.model, request.instance_id = target.model, target.instance_id
            return await unary(self._links.to(target.address, target.neuron).stub.Embed(request))

        wanted = WantedModel(request.model, request.request_id)
        return await self._run(wanted, attempt, _UnarySink())

    async def _generate(
        self,
        name: str,
        request: generation.GenerateRequest,
        sink: ChoiceSink,
        record: ServedBy,
        keep_alive_seconds: float | None,
    ) -> None:
        async def attempt(target: InstanceCandidate) -> None:
            record.attempt(target)
            request.model, request.instance_id = target.model, target.instance_id
            goes_on = sink.may_go_on and target.resumes
            error = await self._try(target, request, sink, goes_on=goes_on)
            if error is not None and _may_begin_anew(error, sink, went_on=goes_on):
                error = await self._try(target, request, sink, goes_on=False)
            if error is not None:
                raise error

        wanted = WantedModel(
            name,
            request.request_id,
            request.principal,
            functools.partial(trail_of, request),
            keep_alive_seconds,
        )
        await self._run(wanted, attempt, sink)

    async def _try(
        self,
        target: InstanceCandidate,
        request: generation.GenerateRequest,
        sink: ChoiceSink,
        *,
        goes_on: bool,
    ) -> FleetError | None:
        """Runs a generation on one instance; returns why it failed there, or None."""
        if goes_on:
            _resume(request, sink)
        else:
            request.ClearField("resume_from")
            request.ClearField("resume_fingerprint")
        ended = sink.begin(goes_on=goes_on)
        sink.tells_tokens = target.resumes
        try:
            sink.attach(self._links.to(target.address, target.neuron).start(request, sink))
            return await ended
        finally:
            sink.detach()

    async def _run(
        self,
        wanted: WantedModel,
        attempt: Callable[[InstanceCandidate], Awaitable[Result]],
        sink: _RestartableSink,
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


class _UnarySink(PlacementSink):
    """Of a call with one answer: nobody is told what it waits for, and it may always restart."""

    may_restart = True
    may_go_on = False
    made = ()

    @override
    def waiting(self, step: registry.EnsureModelResponse) -> None:
        del step


def _may_take(target: InstanceCandidate, sink: _RestartableSink) -> bool:
    """True where a request that has failed elsewhere may be tried there."""
    return sink.may_restart or (sink.may_go_on and target.resumes)


def _may_begin_anew(error: FleetError, sink: ChoiceSink, *, went_on: bool) -> bool:
    """True where an instance refused the tokens of another, and the client has seen none of them.

    It has other files of the model, as all have behind an update: it can give an answer of its own.
    """
    return went_on and error.reason is Reason.INSTANCE_MISMATCH and sink.may_restart


def _resume(request: generation.GenerateRequest, sink: ChoiceSink) -> None:
    """Has a request go on behind what the client was told."""
    request.resume_from.ids[:] = sink.made
    if sink.started_event is not None:
        request.resume_fingerprint = sink.started_event.fingerprint


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that ended a group: those behind it came while the others were cancelled."""
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Outstanding(dict[str, int]):
    """This gateway's running requests by instance id; an instance without any is absent."""

    def take(self, instance_id: str) -> None:
        """Counts a request that is sent to an instance, until it ends."""
        self[instance_id] = self.get(instance_id, 0) + 1

    def give_back(self, instance_id: str) -> None:
        """Counts the end of a request that `take` has counted."""
        left = self[instance_id] - 1
        if left:
            self[instance_id] = left
        else:
            del self[instance_id]
