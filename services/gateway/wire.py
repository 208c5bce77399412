"""Builds every object of the gateway once, passes each what it needs, and runs them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Final

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from services.backplane import logs
from services.backplane.errors import FleetError, Reason
from services.backplane.logs import LogSettings
from services.backplane.metrics import new_registry
from services.backplane.process.faults import Faults
from services.backplane.process.lifecycle import Shutdown
from services.backplane.rpc.channels import ChannelPool
from services.backplane.security.credentials import FleetCredentials
from services.gateway.api.access_log import AccessLog, RequestRecord
from services.gateway.api.app import build_app, error_wording
from services.gateway.api.auth import Auth
from services.gateway.api.background import DetachedTasks
from services.gateway.api.cors import Cors, Origins
from services.gateway.api.decoding import Decoding
from services.gateway.api.doors import Doors
from services.gateway.api.health import Readiness
from services.gateway.api.request import RequestScope
from services.gateway.api.services import GatewayServices
from services.gateway.console.console import REFRESH_SECONDS, SECOND, Console
from services.gateway.console.registry_operator import RegistryOperator
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from services.gateway.http1.budget import BodyBudget, ConnectionCounts, Pace, Shares
from services.gateway.http1.limits import Http1Limits
from services.gateway.routing.dispatch import Dispatch, Outstanding
from services.gateway.routing.fleet_view import FleetView
from services.gateway.routing.place import Placer
from services.gateway.routing.registry_client import RegistryClient, keep_watching
from services.gateway.server import HttpServer, ServerOptions, TlsOptions, own_names
from services.gateway.settings import AuthSettings, GatewaySettings
from services.gateway.streaming.ticker import Ticker
from services.gateway.telemetry.metrics import GatewayMetrics
from services.gateway.telemetry.request_log import request_log
from services.gateway.transports.pool import NeuronLinks

# What is left of the drain for streams to say that they were cut.
_FAREWELL_SECONDS: Final = 1.0
# How late the line of a request may be, and in a worker of several its figures.
_SETTLE_SECONDS: Final = 0.2
_FOLLOW_SECONDS: Final = 1.0  # how late a link to a neuron that has left may be closed

log = structlog.get_logger()


class Gateway:
    """One gateway in this process: its objects, and the tasks that keep them going.

    Attributes:
        address: `host:port` of the HTTP server, never port 0.
        services: what the endpoints are given.
        readiness: whether it should be sent requests.
        registry: of its Prometheus metrics.
        faults: what nobody foresaw; once they have broken it, it drains and ends.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        auth: AuthSettings,
        *,
        registry: CollectorRegistry | None = None,
        log_settings: LogSettings | None = None,
        credentials: FleetCredentials | None = None,
    ) -> None:
        """Builds all and binds the listening socket.

        Raises:
            ListenError: the address cannot be listened on.
        """
        self._settings = settings
        self.registry = registry or new_registry("gateway")
        self._metrics = GatewayMetrics(self.registry)
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
        self._placer = Placer(
            view=self._view,
            outstanding=outstanding,
            registry_client=self._registry_client,
            metrics=self._metrics,
            placement_seconds=settings.placement_seconds,
            settle_seconds=settings.settle_seconds,
        )
        self._members: set[str] = set()
        origins = Origins(settings.cors_origins)
        self._detached = DetachedTasks()
        self.services = GatewayServices(
            settings=settings,
            auth=Auth(auth),
            view=self._view,
            dispatch=Dispatch(
                placer=self._placer,
                links=self._links,
                outstanding=outstanding,
                attempts=settings.attempts,
            ),
            ticker=self._ticker,
            metrics=self._metrics,
            access_log=AccessLog(self._metrics, self._request_log, self._view.model_named),
            detached=self._detached,
            doors=Doors(origins, own_names(settings.listen, settings.allowed_hosts)),
            bodies=BodyBudget(settings.bodies_bytes),
            pace=Pace(
                grace_seconds=settings.body_seconds,
                bytes_per_second=settings.body_bytes_per_second,
            ),
            decoding=Decoding(most_items=settings.max_body_items),
            faults=self.faults,
        )
        self._console = Console(
            self.services,
            RegistryOperator(self._channels, self._registry_client),
            self._running,
            self.faults,
        )
        self.services.access_log.tell(self._console)
        self.readiness = Readiness(self._view, self.faults)
        self._responses = ResponsesStore(
            Path(settings.responses_file) if settings.responses_file else None,
            max_responses=settings.responses_kept,
            max_bytes=settings.responses_bytes,
        )
        self._server = self._build_server(origins)
        self._metrics.uses_http1_codec(self._server.http1_codec)

    @property
    def address(self) -> str:
        """Where the HTTP server listens."""
        return self._server.address

    async def serve(self, shutdown: Shutdown) -> None:
        """Serves until the shutdown is requested, then drains."""
        async with self._upkeep():
            log.info(
                "gateway.started", address=self.address, registry=self._registry_client.address
            )
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(self._farewell(shutdown)),
                    group.create_task(self._end_if_broken(shutdown)),
                ]
                await self._server.serve(shutdown.wait)
                for task in beside:
                    task.cancel()
        log.info("gateway.stopped")

    def use_keys(self, auth: AuthSettings) -> None:
        """Admits by these keys from now on."""
        self.services.auth.use(auth)

    def use_log(self, settings: LogSettings) -> None:
        """Logs by these settings from now on."""
        logs.configure(settings, service="gateway")
        self._request_log.drain()
        self._request_log = request_log(settings)
        self.services.access_log.use(self._request_log)

    def reload_certificate(self) -> None:
        """Shows new clients the certificate that its file has now.

        Raises:
            SettingsError: the files cannot be used; the old one stays.
        """
        self._server.reload_certificate()

    def close(self) -> None:
        """Closes the listening socket, where it was never served, and the stored responses."""
        self._server.close()
        self.services.decoding.close()
        self._responses.close()

    @contextlib.asynccontextmanager
    async def _upkeep(self) -> AsyncGenerator[None]:
        """Keeps the view fresh and the streams alive while the context is open."""
        watch = keep_watching(self._registry_client, self._view, self.faults)
        tasks = [
            self.faults.vital(watch, name="fleet-watch"),
            self.faults.vital(self._ticker.run(), name="ticker"),
            self.faults.repeat("members", self._follow_members, _FOLLOW_SECONDS),
            self.faults.repeat("settling", self._settle, _SETTLE_SECONDS),
            self.faults.repeat("console", self._console.refresh, REFRESH_SECONDS),
            self.faults.repeat("console-rates", self._console.count, SECOND),
            self.faults.repeat("console-pending", self._console.ask, SECOND),
        ]
        try:
            async with self.faults.watching_loop():
                yield
        finally:
            await self._detached.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._placer.close()
            await self._links.close()
            await self._channels.close()
            self._request_log.drain()

    async def _end_if_broken(self, shutdown: Shutdown) -> None:
        await self.faults.broken.wait()
        shutdown.request("a task that it cannot do without has ended")

    async def _settle(self) -> None:
        """Hands over the lines and figures of the requests that have ended."""
        self._request_log.drain()
        self._metrics.settle()

    async def _farewell(self, shutdown: Shutdown) -> None:
        """Ends readiness, and requests that have not come whole, at once.

        Near the end of the drain, what still runs is ended with an error.
        """
        await shutdown.wait()
        self.readiness.drain()
        error = FleetError(
            Reason.SHUTTING_DOWN, "The gateway is shutting down.", retry_after_seconds=5
        )
        self._console.close(error)
        self._ticker.end_unread(error)
        await asyncio.sleep(max(0.0, self._settings.drain_seconds - _FAREWELL_SECONDS))
        self._ticker.end_all(error)

    async def _follow_members(self) -> None:
        """Closes the links to neurons that have left the fleet."""
        self._view.expire()
        members = {n.identity.address for n in self._view.neurons.values()}
        if self._members - members:
            await self._links.keep_only(members)
        self._members = members
        self._metrics.view_revision.set(self._view.revision or 0)

    def _running(self) -> Iterable[RequestRecord]:
        """The records of all requests under way."""
        return [one.record for one in self._ticker.watched() if isinstance(one, RequestScope)]

    def _build_server(self, origins: Origins) -> HttpServer:
        settings = self._settings
        error_responses = error_wording(self._metrics, origins)
        tls = settings.tls
        options = ServerOptions(
            listen=settings.listen,
            http1_codec=settings.http1_codec,
            # the app words a body that is too large in its own envelope; this is the backstop
            limits=Http1Limits(body_bytes=settings.max_body_bytes),
            error_body=error_responses.codec_error,
            drain_seconds=settings.drain_seconds,
            shares=Shares(
                bodies=self.services.bodies,
                pace=self.services.pace,
                connections=ConnectionCounts(settings.connections_per_address),
            ),
            tls=None if tls is None else TlsOptions(**msgspec.structs.asdict(tls)),
        )
        app = build_app(
            self.services,
            self.readiness,
            error_responses,
            self._responses,
            console=self._console.routes(error_responses),
        )
        return HttpServer(Cors(app, origins) if settings.cors_origins else app, options)
