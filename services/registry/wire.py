"""Builds the registry out of its parts and runs it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import pathlib
from collections.abc import AsyncGenerator, Callable

import structlog

from cortex.v1 import (
    accounting_service_pb2_grpc,
    join_service_pb2_grpc,
    key_service_pb2_grpc,
    operator_service_pb2_grpc,
    registry_service_pb2_grpc,
    storage_service_pb2_grpc,
)
from services.backplane.address import Address
from services.backplane.first_ended import first_ended
from services.backplane.logs import LogSettings, configure
from services.backplane.metrics import RpcMetrics, exposition, new_registry
from services.backplane.process.faults import Faults
from services.backplane.process.lifecycle import EX_SOFTWARE, Shutdown, reloading
from services.backplane.process.reload import SettingsReload
from services.backplane.process.service_manager import notify
from services.backplane.rpc.audited import RpcAudit
from services.backplane.rpc.server import Server
from services.backplane.security.access import Access, StrangersAccess
from services.backplane.security.audit import AuditLog, AuditSettings
from services.backplane.security.authority import AuthorityError, certificate_of
from services.backplane.security.credentials import FleetCredentials
from services.backplane.settings import Document, SettingsError
from services.backplane.tracing.settings import tracing
from services.backplane.tracing.spans import Tracer
from services.registry import settings as settings_module
from services.registry.api.access import METHODS, OPERATIONS, STRANGERS_METHODS
from services.registry.api.accounting_servicer import ACCOUNTING_SERVICE, AccountingServicer
from services.registry.api.join_servicer import BOUNDS, JOIN_SERVICE, JoinServicer
from services.registry.api.key_servicer import KEY_SERVICE, KeyServicer
from services.registry.api.operator_servicer import OperatorServicer
from services.registry.api.registry_servicer import RegistryServicer
from services.registry.api.storage_servicer import FLEET_STORAGE_SERVICE, FleetStorageServicer
from services.registry.catalogue import catalogue as catalogues
from services.registry.election import Election, own_address
from services.registry.holder import LeaderHolder
from services.registry.metrics import RegistryMetrics
from services.registry.settings import Settings
from services.registry.store.open import open_store
from services.registry.term import LeaderTerm

SERVICES = (
    "cortex.v1.RegistryService",
    "cortex.v1.OperatorService",
    KEY_SERVICE,
    ACCOUNTING_SERVICE,
    FLEET_STORAGE_SERVICE,
)
# Beside `/metrics`: https://prometheus.io/docs/prometheus/latest/http_sd/
DISCOVERY = "/discovery/neurons"
# Streams that are open at the end are told at once; this is for answers that are under way.
_GRACE_SECONDS = 2.0

log = structlog.get_logger()


async def serve(
    document: Document,
    shutdown: Shutdown,
    *,
    listen: Address | None = None,
    started: Callable[[Address], None] | None = None,
) -> int:
    """Runs the registry until it is told to stop; in a process of its own or inside another's.

    Args:
        document: all settings.
        shutdown: ends it.
        listen: where, in place of the settings.
        started: told the address once it is served and it is known who leads.

    Returns: the exit code.

    Raises:
        SettingsError: settings or catalogue cannot be used, or strangers would be let in.
        PortTakenError: somebody else listens there.
    """
    with tracing(document, "registry") as tracer:
        return await _serve(document, shutdown, listen=listen, started=started, tracer=tracer)


async def _serve(
    document: Document,
    shutdown: Shutdown,
    *,
    listen: Address | None,
    started: Callable[[Address], None] | None,
    tracer: Tracer | None,
) -> int:
    settings = settings_module.read(document)
    listen = listen or Address.parse(settings.registry.listen)
    credentials = settings_module.credentials_of(document, settings, listens=listen)
    catalogue = _catalogue(settings)
    collectors = new_registry("registry")
    holder = LeaderHolder[LeaderTerm]()
    faults = Faults(collectors, "registry")
    access = Access(credentials, METHODS)
    metrics = RpcMetrics(collectors, "registry")
    audit_log = AuditLog(settings.audit, "registry", collectors)
    server = Server(
        service_names=SERVICES,
        metrics=metrics,
        access=access,
        audit=RpcAudit(audit_log, access, OPERATIONS),
        tracer=tracer,
    )
    server.add(
        registry_service_pb2_grpc.add_RegistryServiceServicer_to_server,
        RegistryServicer(holder, access),
    )
    server.add(
        operator_service_pb2_grpc.add_OperatorServiceServicer_to_server, OperatorServicer(holder)
    )
    server.add(key_service_pb2_grpc.add_KeyServiceServicer_to_server, KeyServicer(holder))
    server.add(
        accounting_service_pb2_grpc.add_AccountingServiceServicer_to_server,
        AccountingServicer(holder),
    )
    server.add(
        storage_service_pb2_grpc.add_FleetStorageServiceServicer_to_server,
        FleetStorageServicer(holder),
    )
    metrics_listen = settings.registry.metrics_listen
    registry_metrics = RegistryMetrics(collectors)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(
            exposition(
                collectors,
                Address.parse(metrics_listen) if metrics_listen else None,
                {DISCOVERY: registry_metrics.targets},
            )
        )
        address = await server.start(listen)
        stack.push_async_callback(server.stop, _GRACE_SECONDS)
        if settings.registry.authority:
            await _serve_joining(
                stack,
                document,
                settings,
                holder=holder,
                metrics=metrics,
                credentials=credentials,
                audit_log=audit_log,
            )
        store = await stack.enter_async_context(
            open_store(
                settings.registry.store,
                lease_seconds=settings.registry.leader_lease_seconds,
            )
        )
        stack.enter_context(reloading(_reload(document, holder, audit_log)))
        log.info("registry.started", address=str(address), models=len(catalogue.profiles))
        notify("READY=1")
        await stack.enter_async_context(faults.watching_loop())
        election = Election(
            settings=settings,
            catalogue=catalogue,
            store=store,
            holder=holder,
            metrics=registry_metrics,
            faults=faults,
            shutdown=shutdown,
            address=own_address(settings, address),
            credentials=credentials,
            on_decided=functools.partial(started, address) if started is not None else None,
        )
        ended = await first_ended(election.run(), _told_when_broken(faults, server))
        if ended is not None and not faults.broken.is_set():
            ended.result()
    log.info("registry.stopped")
    return EX_SOFTWARE if faults.broken.is_set() else 0


async def _serve_joining(
    stack: contextlib.AsyncExitStack,
    document: Document,
    settings: Settings,
    *,
    holder: LeaderHolder[LeaderTerm],
    metrics: RpcMetrics,
    credentials: FleetCredentials | None,
    audit_log: AuditLog,
) -> None:
    """Lets hosts without a certificate in, on a port of its own, until the stack is left."""
    place = document.place("registry.authority")
    if credentials is None:
        raise SettingsError(f"{place}: needs this registry's own certificate in [fleet]")
    try:
        certificate_of(pathlib.Path(settings.registry.authority))
    except AuthorityError as error:
        raise SettingsError(f"{place}: {error}") from error
    if not settings.registry.join_listen:
        return
    access = StrangersAccess(credentials, STRANGERS_METHODS)
    server = Server(
        service_names=[JOIN_SERVICE],
        metrics=metrics,
        access=access,
        bounds=BOUNDS,
        audit=RpcAudit(
            audit_log,
            access,
            OPERATIONS,
            refusals=False,
            is_done=lambda answer: bool(answer.certificate),  # else it waits, and asks again
        ),
    )
    server.add(join_service_pb2_grpc.add_JoinServiceServicer_to_server, JoinServicer(holder))
    address = await server.start(Address.parse(settings.registry.join_listen))
    stack.push_async_callback(server.stop, _GRACE_SECONDS)
    log.info("registry.joining", address=str(address))


async def _told_when_broken(faults: Faults, server: Server) -> None:
    """Returns when the registry cannot go on; its health says so before anything else."""
    await faults.broken.wait()
    for name in ("", *SERVICES):
        await server.set_health(name, serving=False)


@contextlib.asynccontextmanager
async def running(document: Document, *, listen: Address | None = None) -> AsyncGenerator[Address]:
    """A registry inside this process while the context is open; yields its address."""
    shutdown = Shutdown()
    ready: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(document, shutdown, listen=listen, started=ready.set_result))
    try:
        await first_ended(kept=(task, ready))
        if task.done():
            task.result()
        yield ready.result()
    finally:
        shutdown.request("the embedding program ends")
        await task


def _catalogue(settings: Settings) -> catalogues.Catalogue:
    path = settings.models_path
    if path is None:
        log.warning("catalogue.absent", detail="only models on neurons' disks are offered")
        return catalogues.EMPTY
    catalogue = catalogues.load(path)
    log.info(
        "catalogue.loaded",
        path=str(path),
        models=len(catalogue.profiles),
        aliases=len(catalogue.aliases),
    )
    return catalogue


def _reload(
    document: Document, holder: LeaderHolder[LeaderTerm], audit_log: AuditLog
) -> SettingsReload:
    """SIGHUP reads settings and catalogue; a standby reads the latter when it takes over."""

    def reload_catalogue() -> None:
        if holder.term is not None:
            holder.term.reload()

    return SettingsReload(
        document,
        sections=("registry", "eviction", "neurons", "fleet", "log", "audit", "telemetry"),
        check=settings_module.read,
        live={
            "log": lambda fresh: configure(fresh.section("log", LogSettings), service="registry"),
            "audit": lambda fresh: audit_log.use(fresh.section("audit", AuditSettings)),
        },
        always=(reload_catalogue,),
    )
