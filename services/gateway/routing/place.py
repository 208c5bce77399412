"""Finds the instance for a request: one that is loaded, or one that the registry loads for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from cortex.v1 import registry_service_pb2 as registry
from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason
from services.backplane.timeouts import timeout
from services.backplane.tracing.rpc import REQUEST_MODEL
from services.gateway.routing.cache_watch import CacheWatch
from services.gateway.routing.candidates import Availability, InstanceCandidate, Outstanding
from services.gateway.routing.choose import NoneServing, choose
from services.gateway.routing.fleet_view import FleetView, ResolvedModel
from services.gateway.routing.prefix import Trail
from services.gateway.routing.registry_client import (
    REGISTRY_OUTAGE_SECONDS,
    OutageTimer,
    RegistryClient,
)
from services.gateway.routing.retry import RetryState
from services.gateway.streaming.placement_status import PlacementSink
from services.gateway.telemetry.metrics import GatewayMetrics
from services.gateway.telemetry.request_trace import UNTRACED, RequestTrace

# How long a lost instance is waited for where no other one may be: the registry knows of a neuron's
# loss within its lease, the gateway of its return with its next report.
_LOST_WAIT_SECONDS: Final = 25.0
_LOOK_SECONDS: Final = 1.0
_ENSURE: Final = "/cortex.v1.RegistryService/EnsureModel"
# The registry is away, or does not lead: the next address in the list is asked.
_AWAY: Final = frozenset({Reason.REGISTRY_UNAVAILABLE, Reason.NOT_LEADER, Reason.SHUTTING_DOWN})

log = structlog.get_logger()


class WantedModel(msgspec.Struct, frozen=True):
    """The model that a request needs, and who needs it.

    Attributes:
        name: model or alias, as the client spelled it.
        request_id: for the registry's log.
        principal: whose request it is; the registry shares fairly among principals.
        trail: makes digests of the prompt's beginnings for a model (see `trail_of`); None: there is
            no conversation.
        keep_alive_seconds: how long the model should stay loaded after this request; None: the
            fleet's policy decides.
        trace: of the request.
    """

    name: str
    request_id: str
    principal: str = ""
    trail: Callable[[str], Trail] | None = None
    keep_alive_seconds: float | None = None
    trace: RequestTrace = UNTRACED


class Placer:
    """Chooses among the loaded instances; where none can serve, has the registry load one."""

    def __init__(
        self,
        *,
        view: FleetView,
        outstanding: Outstanding,
        registry_client: RegistryClient,
        metrics: GatewayMetrics,
        placement_seconds: float,
        settle_seconds: float,
        caches: CacheWatch,
    ) -> None:
        self._view = view
        self._outstanding = outstanding
        self._registry_client = registry_client
        self._metrics = metrics
        self._placement_seconds = placement_seconds
        self._settle_seconds = settle_seconds
        self._homes = caches.homes
        self._holdings = caches.holdings
        self._telling: set[asyncio.Task[None]] = set()

    def candidates(self, name: str) -> tuple[InstanceCandidate, ...]:
        """The loaded instances of a model.

        Raises:
            FleetError: MODEL_UNKNOWN.
        """
        return self._view.resolve(name).candidates

    def loaded(self, wanted: WantedModel, retry: RetryState | None) -> InstanceCandidate | None:
        """The instance that serves best now (see `choose`); None where none can.

        Raises:
            FleetError: MODEL_UNKNOWN.
        """
        try:
            resolved = self._view.resolve(wanted.name)
        except FleetError:
            if self._view.is_complete:
                raise
            return None  # `place` waits until more is known
        picked = self._pick(resolved, wanted, retry)
        return picked if isinstance(picked, InstanceCandidate) else None

    async def place(
        self, wanted: WantedModel, retry: RetryState, sink: PlacementSink
    ) -> InstanceCandidate:
        """Waits for an instance: for one that recovers, or until the registry has loaded one.

        The wait is at most the model's `max_wait`, else `gateway.placement_seconds`.

        Args:
            wanted: what is needed.
            retry: what has failed before; these instances are not taken again.
            sink: told of each step of the placement.

        Raises:
            FleetError: why there is none: MODEL_UNKNOWN, NO_ROOM, LOAD_FAILED, QUEUE_TIMEOUT, …;
                after a failed attempt that another load would not mend, that attempt's error.
        """
        resolved = await self._known(wanted.name)
        seconds = resolved.max_wait_seconds or self._placement_seconds
        try:
            async with timeout(seconds):
                return await self._settled(wanted, retry) or await self._ensured(
                    wanted, retry, sink
                )
        except TimeoutError as error:
            raise FleetError(
                Reason.QUEUE_TIMEOUT,
                f"The model {wanted.name!r} could not be placed within {seconds:g} seconds.",
                retry_after_seconds=10,
            ) from error

    def tell_keep_alive(self, wanted: WantedModel) -> None:
        """Tells the registry, without waiting, how long a loaded model should stay loaded."""
        task = asyncio.create_task(self._keep_alive(wanted))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def close(self) -> None:
        """Cancels what `tell_keep_alive` has begun."""
        for task in tuple(self._telling):
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def _keep_alive(self, wanted: WantedModel) -> None:
        try:
            async with timeout(REGISTRY_OUTAGE_SECONDS):
                async for _ in self._registry_client.ensure(_request(wanted)):
                    pass
        except (FleetError, TimeoutError) as error:
            log.warning("keep_alive.not_told", model=wanted.name, detail=str(error))

    def _pick(
        self, resolved: ResolvedModel, wanted: WantedModel, retry: RetryState | None
    ) -> InstanceCandidate | NoneServing:
        replicas = resolved.replicas
        excluded = retry.excluded(replicas.candidates) if retry is not None else None
        if excluded:
            replicas = replicas.without(excluded, self._outstanding)
        return choose(replicas, self._homes, holdings=self._holdings, trail=wanted.trail)

    async def _settled(self, wanted: WantedModel, retry: RetryState) -> InstanceCandidate | None:
        """Waits while an instance recovers, or for the report that says what a failure has left.

        None where the registry has to be asked for a placement.
        """
        if retry.last is not None and not retry.model_was_lost:
            picked = self._pick(self._view.resolve(wanted.name), wanted, retry)
            if isinstance(picked, NoneServing):
                raise retry.last
            return picked
        settled_at = time.monotonic() + (self._settle_seconds if retry.last else 0)
        while True:
            resolved = self._view.resolve(wanted.name)
            picked = self._pick(resolved, wanted, retry)
            if isinstance(picked, InstanceCandidate):
                return picked
            left = settled_at - time.monotonic()
            if picked.recovering:
                await self._view.changed()
            elif left <= 0 or not any(
                c.availability is Availability.SERVING for c in resolved.candidates
            ):
                return None
            else:
                await self._next_change(left)

    async def _known(self, name: str) -> ResolvedModel:
        """The model of a name; one that an incomplete view lacks is waited for.

        Raises:
            FleetError: MODEL_UNKNOWN, or REGISTRY_UNAVAILABLE once it was waited for long enough.
        """
        outage = OutageTimer()
        while True:
            try:
                return self._view.resolve(name)
            except FleetError:
                if self._view.is_complete or outage.is_over:
                    raise
            await self._next_change(outage.left)

    async def _next_change(self, seconds: float) -> None:
        try:
            async with timeout(seconds):
                await self._view.changed()
        except TimeoutError:
            return

    async def _ensured(
        self, wanted: WantedModel, retry: RetryState, sink: PlacementSink
    ) -> InstanceCandidate:
        outage, lost_until = OutageTimer(), time.monotonic() + _LOST_WAIT_SECONDS
        while True:
            try:
                return await self._ask_registry(wanted, retry, sink, outage)
            except FleetError as error:
                if _has_only_lost(error) and time.monotonic() < lost_until:
                    await asyncio.sleep(_LOOK_SECONDS)
                    picked = self._pick(self._view.resolve(wanted.name), wanted, retry)
                    if isinstance(picked, InstanceCandidate):
                        return picked
                    continue
                if error.reason not in _AWAY or not outage.has_left(committed=sink.is_committed):
                    raise
            self._registry_client.turn_to_next()
            await asyncio.sleep(outage.pause())

    async def _ask_registry(
        self, wanted: WantedModel, retry: RetryState, sink: PlacementSink, outage: OutageTimer
    ) -> InstanceCandidate:
        request = _request(wanted)
        request.excluded_instance_ids.extend(retry.failed_instances)
        is_cold = False
        last = None
        with wanted.trace.hop(_ENSURE, lambda: {REQUEST_MODEL: wanted.name}) as hop:
            async for step in self._registry_client.ensure(request, metadata=hop.metadata):
                outage.begin()
                kind = step.WhichOneof("event")
                if kind != last:  # a load tells of its progress many times
                    last = kind
                    hop.note(kind or "unknown")
                if kind == "placed":
                    if is_cold:
                        self._metrics.cold_start(step.placed.model or wanted.name)
                    resumes = self._view.resumes(step.placed.neuron)
                    return _candidate(step.placed, wanted.name, resumes=resumes)
                is_cold = is_cold or kind in {"loading", "evicting"}
                if kind == "evicting":
                    self._metrics.evicted(step.evicting.victim_models)
                sink.waiting(step)
        raise FleetError(Reason.REGISTRY_UNAVAILABLE, "The registry ended without a placement.")


def _has_only_lost(error: FleetError) -> bool:
    """True where the registry has no instance but those that this request has lost.

    It believes of one that it lives, and allows no other beside it.
    """
    return error.reason is Reason.NO_ROOM and error.facts.get("cause") == "replicas"


def _request(wanted: WantedModel) -> registry.EnsureModelRequest:
    request = registry.EnsureModelRequest(
        request_id=wanted.request_id, model=wanted.name, principal=wanted.principal
    )
    if wanted.keep_alive_seconds is not None:
        request.keep_alive.CopyFrom(protobuf_time.duration(wanted.keep_alive_seconds))
    return request


def _candidate(placed: registry.Placement, name: str, *, resumes: bool) -> InstanceCandidate:
    return InstanceCandidate(
        instance_id=placed.instance_id,
        model=placed.model or name,
        neuron=placed.neuron,
        address=placed.address,
        availability=Availability.SERVING,
        resumes=resumes,
    )
