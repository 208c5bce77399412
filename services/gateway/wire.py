"""Builds every object of the gateway once, passes each what it needs, and runs them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from services.backplane import logs
from services.backplane.errors import FleetError
from services.backplane.logs import LogSettings
from services.backplane.metrics import new_registry
from services.backplane.process.faults import Faults
from services.backplane.process.lifecycle import Shutdown
from services.backplane.process.reload import Reloaded
from services.backplane.rpc.channels import ChannelPool
from services.backplane.security.audit import AuditLog, AuditSettings
from services.backplane.security.credentials import FleetCredentials
from services.backplane.settings import Document
from services.backplane.tracing.spans import Tracer
from services.gateway.admin.routes import routes as admin_routes
from services.gateway.api.access_log import AccessLog
from services.gateway.api.app import build_app, error_wording
from services.gateway.api.background import DetachedTasks
from services.gateway.api.cors import Cors, Origins
from services.gateway.api.cross_site import CrossSiteCheck
from services.gateway.api.decoding import Decoding
from services.gateway.api.health import Readiness
from services.gateway.api.operators.endpoint import OperatorEndpoints
from services.gateway.api.operators.registry_operator import RegistryOperator
from services.gateway.api.request import end_lost, running, under_way
from services.gateway.api.services import GatewayServices
from services.gateway.auth.auth import Auth
from services.gateway.auth.key_watch import REPORT_SECONDS, KeyWatch
from services.gateway.console.console import Console
from services.gateway.console.history import RequestHistory
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from services.gateway.draining import GatewayShutdown
from services.gateway.http1.budget import BodyBudget, ClientBudgets, ConnectionCounts, Pace
from services.gateway.routing.accounting import Accounting
from services.gateway.routing.cache_watch import CacheWatch
from services.gateway.routing.candidates import Outstanding
from services.gateway.routing.dispatch import Dispatch
from services.gateway.routing.fleet_view import FleetView
from services.gateway.routing.place import Placer
from services.gateway.routing.registry_client import RegistryClient, keep_watching
from services.gateway.routing.upstreams.destinations import Destinations
from services.gateway.routing.upstreams.upstreams import Upstreams
from services.gateway.server import HttpServer, ServerOptions, own_names
from services.gateway.settings import AuthSettings, GatewaySettings
from services.gateway.settings_reload import settings_reload
from services.gateway.streaming.ticker import Ticker
from services.gateway.telemetry.metrics import GatewayMetrics
from services.gateway.telemetry.request_log import request_log
from services.gateway.telemetry.request_trace import RequestTraces
from services.gateway.transports.pool import NeuronLinks

# How late the line of a request may be, and in a worker of several its figures.
_SETTLE_SECONDS: Final = 0.2
# How late a link to a neuron that has left is closed, and another certificate is shown.
_FOLLOW_SECONDS: Final = 1.0

log = structlog.get_logger()


class Gateway:
    """One gateway in this process: its objects, and the tasks that keep them going.

    Attributes:
        address: `host:port` of the HTTP server, never port 0.
        services: what the endpoints are given.
        caches: what the neurons tell of their caches.
        readiness: whether it should be sent requests.
        registry: of its Prometheus metrics.
        draining: how it ends.
        faults: what nobody foresaw; once they have broken it, it drains and ends.
        server: listens for clients.
        reload: reads the settings again.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        auth: AuthSettings,
        *,
        registry: CollectorRegistry | None = None,
        log_settings: LogSettings | None = None,
        credentials: FleetCredentials | None = None,
        audit: AuditSettings | None = None,
        document: Document | None = None,
        tracer: Tracer | None = None,
        reload_all: Callable[[], Reloaded] | None = None,
    ) -> None:
        """Builds all and binds the listening socket.

        What is set is from `document`, which `reload` reads again. In one worker of several
        `POST /admin/reload` calls `reload_all` instead, which has all of them do it.

        Raises:
            ListenError: the address cannot be listened on.
        """
        self.registry = registry or new_registry("gateway")
        self._metrics = GatewayMetrics(self.registry, vllm=settings.vllm_metrics)
        self.faults = Faults(self.registry, "gateway")
        self._channels = ChannelPool(credentials)
        outstanding = Outstanding()
        self._view = FleetView(
            outstanding,
            on_models=self._metrics.expect,
            on_revoked=(lambda _: None) if credentials is None else credentials.refuse,
        )
        self._registry_client = RegistryClient(self._channels, settings.registry)
        self._request_log = request_log(log_settings or LogSettings())
        self._links = NeuronLinks(
            self._channels,
            kind=settings.transport,
            window_tokens=settings.window_tokens,
            faults=self.faults,
        )
        self._ticker = Ticker(keepalive_seconds=settings.keepalive_seconds, faults=self.faults)
        self.caches = CacheWatch(self._view, self._links, self.faults)
        self._placer = Placer(
            view=self._view,
            outstanding=outstanding,
            registry_client=self._registry_client,
            metrics=self._metrics,
            placement_seconds=settings.placement_seconds,
            settle_seconds=settings.settle_seconds,
            caches=self.caches,
        )
        self._origins = Origins(settings.cors_origins)
        keys = Auth(auth, on_change=functools.partial(end_lost, self._ticker))
        self._accounting = Accounting(self._registry_client, keys.limits, settings, self.registry)
        history = RequestHistory(functools.partial(running, self._ticker), self._accounting.usage)
        self._upstreams = Upstreams(settings, self.registry, self.faults)
        dispatch = Dispatch(
            placer=self._placer,
            links=self._links,
            outstanding=outstanding,
            holdings=self.caches.holdings,
            attempts=settings.attempts,
        )
        destinations = Destinations(dispatch, self._upstreams, self._view)
        names = own_names(settings.listen, settings.allowed_hosts)
        self.services = GatewayServices(
            settings=settings,
            auth=keys,
            limiter=self._accounting.limiter,
            view=self._view,
            dispatch=dispatch,
            destinations=destinations,
            ticker=self._ticker,
            metrics=self._metrics,
            access_log=AccessLog(
                self._metrics,
                self._request_log,
                destinations.directory.model_named,
                usage=self._accounting.usage,
                device_costs=self._accounting.limiter.device_costs,
                faults=self.faults,
                listener=history,
            ),
            detached=DetachedTasks(),
            cross_site=CrossSiteCheck(self._origins, names),
            bodies=BodyBudget(settings.bodies_bytes),
            pace=Pace(settings.body_seconds, settings.body_bytes_per_second),
            decoding=Decoding(most_items=settings.max_body_items),
            traces=RequestTraces(tracer),
            faults=self.faults,
        )
        audit_log = AuditLog(audit or AuditSettings(), "gateway", self.registry)
        self.reload = settings_reload(
            document or Document({}, source="nothing"),
            origins=self._origins,
            auth=keys,
            upstreams=self._upstreams,
            audit_log=audit_log,
            use_log=self._use_log,
            use_certificate=lambda: self.server.reload_certificate(),  # noqa: PLW0108 - built later
        )
        operator = RegistryOperator(self._channels, self._registry_client)
        self._operators = OperatorEndpoints(self.services, audit_log)
        self._console = Console(self.services, operator, history, self._operators)
        self._key_watch = KeyWatch(self._channels, self._registry_client, keys.store, self.faults)
        self.readiness = Readiness(self._view, keys.store, self.faults)
        self._responses = ResponsesStore(
            Path(settings.responses_file) if settings.responses_file else None,
            max_responses=settings.responses_kept,
            max_bytes=settings.responses_bytes,
        )
        admin = admin_routes(self._operators, operator, keys, reload_all or self.reload)
        self.server = self._build_server(admin)
        self.draining = GatewayShutdown(
            self.server,
            self._leave,
            self._ticker,
            self.faults,
            handover_seconds=settings.handover_seconds,
        )
        self._metrics.uses_http1_codec(self.server.http1_codec)

    @property
    def address(self) -> str:
        """Where the HTTP server listens."""
        return self.server.address

    async def serve(self, shutdown: Shutdown) -> None:
        """Serves until the shutdown is requested, then drains."""
        async with self._upkeep():
            log.info(
                "gateway.started", address=self.address, registry=self._registry_client.address
            )
            async with asyncio.TaskGroup() as group:
                draining = group.create_task(self.draining.run(shutdown))
                await self.server.serve(shutdown.wait)
                draining.cancel()
        log.info("gateway.stopped")

    def _use_log(self, settings: LogSettings) -> None:
        logs.configure(settings, service="gateway")
        self._request_log = request_log(settings)
        self.services.access_log.use(self._request_log)

    def close(self) -> None:
        """Closes the listening socket, where it was never served, and the stored responses."""
        self.server.close()
        self.services.decoding.close()
        self._responses.close()

    @contextlib.asynccontextmanager
    async def _upkeep(self) -> AsyncGenerator[None]:
        """Keeps the view fresh and the streams alive while the context is open."""
        watch = keep_watching(self._registry_client, self._view, self.faults)
        tasks = [
            self.faults.vital(watch, name="fleet-watch"),
            self.faults.vital(self._key_watch.run(), name="key-watch"),
            self.faults.vital(self._ticker.run(), name="ticker"),
            self.faults.repeat("key-use", self._key_watch.report, REPORT_SECONDS),
            *self._accounting.start(self.faults),
            self.faults.repeat("members", self._follow_members, _FOLLOW_SECONDS),
            self.faults.repeat("caches", self.caches.follow, _FOLLOW_SECONDS),
            self.faults.repeat("certificate", self.server.follow_certificate, _FOLLOW_SECONDS),
            self.faults.repeat("settling", self._settle, _SETTLE_SECONDS),
            *self._console.tasks(),
        ]
        try:
            async with self.faults.watching_loop():
                yield
        finally:
            await self.services.detached.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.caches.close()
            await self._settle()
            await self._accounting.close()
            await self._placer.close()
            await self._upstreams.close()
            await self._links.close()
            await self._channels.close()

    async def _settle(self) -> None:
        """Hands over the lines and figures of the requests that have ended."""
        self.services.access_log.settle()
        self._request_log.drain()
        self._metrics.ready.set(self.readiness.problem() is None)
        self._metrics.show_under_way(lambda: under_way(self._ticker, self._view.model_named))
        self._metrics.settle()

    def _leave(self, error: FleetError) -> None:
        """Ends readiness, and the pages of the console."""
        self.readiness.drain()
        self._operators.close(error)

    async def _follow_members(self) -> None:
        """Closes the links to neurons that have left the fleet."""
        self._view.expire()
        await self._links.follow({n.identity.address for n in self._view.neurons.values()})
        self._metrics.view_revision.set(self._view.revision or 0)

    def _build_server(self, admin: Sequence[Route]) -> HttpServer:
        error_responses = error_wording(self._metrics, self._origins)
        shares = ClientBudgets(
            bodies=self.services.bodies,
            pace=self.services.pace,
            connections=ConnectionCounts(self.services.settings.connections_per_address),
        )
        options = ServerOptions.of(self.services.settings, shares, error_responses.codec_error)
        operating = [*self._console.routes(error_responses), *admin]
        app = build_app(
            self.services, self.readiness, error_responses, self._responses, operating=operating
        )
        return HttpServer(Cors(app, self._origins), options)
