"""Runs requests on instances: picks one, starts, tries elsewhere while nobody has seen a delta."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.calls import unary
from services.backplane.errors import FleetError
from services.gateway.routing.choose import InstanceCandidate, prompt_prefix
from services.gateway.routing.place import Placer, WantedModel
from services.gateway.routing.retry import RetryState, ServedBy
from services.gateway.streaming.choice import ChoiceSink
from services.gateway.transports.pool import NeuronLink, NeuronLinks

Response = TypeVar("Response")


class Dispatch:
    """Between the endpoints and the fleet."""

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
        """Runs every choice to its end.

        Cancelling it cancels every generation on its neuron.

        Args:
            name: model or alias.
            requests: one per choice; model and instance are filled in here.
            sinks: one per request.
            record: told where the choices ran.
            keep_alive_seconds: how long the model should stay after this; None: policy decides.

        Raises:
            FleetError: some choice could not be finished; the others are cancelled.
        """
        if len(requests) == 1:
            await self._run(name, requests[0], sinks[0], record, keep_alive_seconds)
            return
        try:
            async with asyncio.TaskGroup() as group:
                for request, sink in zip(requests, sinks, strict=True):
                    group.create_task(self._run(name, request, sink, record, keep_alive_seconds))
        except* FleetError as failures:
            raise _first(failures) from None

    async def count_tokens(self, request: neuron.CountTokensRequest) -> neuron.CountTokensResponse:
        """Counts a prompt; `model` may be an alias.

        Raises:
            FleetError: as for a generation.
        """
        return await self._unary(request, lambda link: link.stub.CountTokens(request))

    async def embed(self, request: neuron.EmbedRequest) -> neuron.EmbedResponse:
        """Embeds texts; `model` may be an alias.

        Raises:
            FleetError: as for a generation.
        """
        return await self._unary(request, lambda link: link.stub.Embed(request))

    async def _run(
        self,
        name: str,
        request: generation.GenerateRequest,
        sink: ChoiceSink,
        record: ServedBy,
        keep_alive_seconds: float | None,
    ) -> None:
        wanted = WantedModel(
            name,
            request.request_id,
            request.principal,
            functools.partial(prompt_prefix, request),
            keep_alive_seconds,
        )
        # The everyday case: a loaded instance serves it at the first attempt.
        target = self._placer.loaded(wanted, None)
        if keep_alive_seconds is not None and target is not None:
            self._placer.tell_keep_alive(wanted)
        retry: RetryState | None = None
        while True:
            if target is None:
                retry = retry or RetryState(self._attempts)
                target = await self._placer.place(wanted, retry, sink)
            record.attempt(target)
            error = await self._attempt(target, request, sink)
            if error is None:
                return
            retry = retry or RetryState(self._attempts)
            retry.note(target.instance_id, target.report, error)
            if not sink.may_restart or not retry.may_go_on(error):
                raise error
            target = self._placer.loaded(wanted, retry)

    async def _attempt(
        self, target: InstanceCandidate, request: generation.GenerateRequest, sink: ChoiceSink
    ) -> FleetError | None:
        request.model = target.model
        request.instance_id = target.instance_id
        ended = sink.begin()
        self._outstanding.take(target.instance_id)
        try:
            sink.attach(self._links.to(target.address).start(request, sink))
            return await ended
        finally:
            sink.detach()
            self._outstanding.give_back(target.instance_id)

    async def _unary(
        self, request: Any, call: Callable[[NeuronLink], Awaitable[Response]]
    ) -> Response:
        wanted = WantedModel(request.model, getattr(request, "request_id", ""))
        retry = RetryState(self._attempts)
        while True:
            target = self._placer.loaded(wanted, retry) or await self._placer.place(
                wanted, retry, _Nobody()
            )
            request.model = target.model
            request.instance_id = target.instance_id
            self._outstanding.take(target.instance_id)
            try:
                return await unary(call(self._links.to(target.address)))
            except FleetError as error:
                retry.note(target.instance_id, target.report, error)
                if not retry.may_go_on(error):
                    raise
            finally:
                self._outstanding.give_back(target.instance_id)


class _Nobody:
    """Nobody is told what a unary call waits for."""

    def waiting(self, step: registry.EnsureModelResponse) -> None:
        del step


def _first(failures: BaseExceptionGroup[FleetError]) -> FleetError:
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, FleetError)
    return error


class Outstanding(dict[str, int]):
    """Instance id to running requests; an instance without any is absent."""

    def take(self, instance_id: str) -> None:
        """One more runs there."""
        self[instance_id] = self.get(instance_id, 0) + 1

    def give_back(self, instance_id: str) -> None:
        """One of them has ended."""
        left = self[instance_id] - 1
        if left:
            self[instance_id] = left
        else:
            del self[instance_id]
