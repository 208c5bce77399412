"""Builds a neuron out of its settings: the only place that knows all parts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import uuid
from collections.abc import AsyncGenerator

from prometheus_client import CollectorRegistry

import services
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1.neuron_service_pb2_grpc import add_NeuronServiceServicer_to_server
from services.backplane.address import Address
from services.backplane.changes import Changes
from services.backplane.first_ended import first_ended
from services.backplane.logs import LogSettings, configure
from services.backplane.metrics import RpcMetrics, exposition, new_registry
from services.backplane.process.faults import Faults
from services.backplane.process.lifecycle import EX_SOFTWARE, Shutdown, reloading
from services.backplane.process.reload import SettingsReload
from services.backplane.process.watchdog import watching
from services.backplane.rpc.server import Server
from services.backplane.security.access import Access
from services.backplane.security.credentials import FleetCredentials, own_credentials
from services.backplane.security.exposure import CREDENTIALS_REMEDY, refuse_exposed
from services.backplane.security.roles import Role
from services.backplane.settings import Document
from services.neuron.access import METHODS
from services.neuron.daemon import Daemon
from services.neuron.devices.ggml import LIBRARY_VARIABLE, ask
from services.neuron.devices.inventory import Devices, importable_engines, machine_memory_bytes
from services.neuron.engine_api.model import KvTier
from services.neuron.engines.common.kv_store import folders
from services.neuron.instances.adopt import default_cache_tokens, settled
from services.neuron.instances.assign import Assignments
from services.neuron.instances.instances import Instances
from services.neuron.instances.load import Loader
from services.neuron.instances.reclaim import MemoryReader, Reclaiming
from services.neuron.instances.recover import Recovery
from services.neuron.instances.unload import Unloader
from services.neuron.instances.worker_loads import WorkerLoads
from services.neuron.membership.leader_epoch import LeaderEpoch
from services.neuron.membership.membership import Membership
from services.neuron.membership.report import StatusBoard
from services.neuron.metrics import NeuronMetrics, StatusCollector
from services.neuron.rendering.renderer import Renderers
from services.neuron.servicer import NeuronServicer
from services.neuron.serving.generations import Generations
from services.neuron.serving.queries import Measures
from services.neuron.settings import NeuronSettings
from services.neuron.sources.schemes import sources_of
from services.neuron.supervisor.process import WorkerCommand, python_worker
from services.neuron.supervisor.supervisor import Supervisor

_SERVICE = "cortex.v1.NeuronService"
_STALL_SECONDS = 30.0
"""A daemon whose loop stood still for so long ends; its workers end with it."""


@dataclasses.dataclass(frozen=True, slots=True)
class ServedNeuron:
    """A running neuron, as tests and `cortex up` see it.

    Attributes:
        address: where it listens, with its real port.
        metrics_port: of `/metrics`; 0 where that is not served.
        identity: as the fleet knows it.
        metrics: what it counts.
        broken: set once it cannot go on.
    """

    address: Address
    metrics_port: int
    identity: neuron.NeuronIdentity
    metrics: CollectorRegistry
    broken: asyncio.Event


async def serve(document: Document, shutdown: Shutdown) -> int:
    """Serves until the end is asked for. Returns the exit code.

    Raises:
        SettingsError: the `[neuron]` section cannot be used, or strangers would be let in.
        PortTakenError: it cannot listen where it should.
    """
    settings = document.section("neuron", NeuronSettings)
    credentials = own_credentials(document, Role.NEURON, neuron=settings.own_name)
    listen = Address.parse(settings.listen)
    refuse_exposed(
        document,
        "neuron",
        listen,
        is_meant=credentials is not None or settings.insecure,
        remedy=CREDENTIALS_REMEDY,
    )
    with watching(_STALL_SECONDS):
        async with serving(settings, credentials=credentials) as served:
            with reloading(_reload(document)):
                await first_ended(shutdown.wait(), served.broken.wait())
    return EX_SOFTWARE if served.broken.is_set() else 0


def _reload(document: Document) -> SettingsReload:
    """SIGHUP takes in `[log]`; model folders are looked at all the time; all else needs a restart.

    A neuron that is told to restart drains first, so its other settings hold as long as it lives.
    """
    return SettingsReload(
        document,
        sections=("neuron", "fleet", "log"),
        check=lambda fresh: fresh.section("neuron", NeuronSettings),
        live={"log": lambda fresh: configure(fresh.section("log", LogSettings), service="neuron")},
    )


@contextlib.asynccontextmanager
async def serving(
    settings: NeuronSettings,
    *,
    worker_command: WorkerCommand = python_worker,
    memory: MemoryReader | None = None,
    credentials: FleetCredentials | None = None,
) -> AsyncGenerator[ServedNeuron]:
    """A neuron in this process; leaving the context drains and stops it.

    Args:
        settings: its settings.
        worker_command: command line of its workers.
        memory: who is asked what an unload has freed; None is the GPUs' driver.
        credentials: the fleet's; None speaks plain text and lets everybody in.

    Raises:
        PortTakenError: it cannot listen where it should.
    """
    registry = new_registry("neuron")
    faults = Faults(registry, "neuron")
    ggml = await asyncio.to_thread(ask, settings.llamacpp.library)
    devices = await asyncio.to_thread(
        Devices, reserved_bytes=settings.reserved_memory_bytes, ggml=ggml
    )
    engines, problems = importable_engines(has_gpu=devices.has_gpu)
    identity = neuron.NeuronIdentity(
        name=settings.own_name,
        incarnation_id=uuid.uuid4().hex,
        labels=settings.labels,
        version=services.__version__,
        engines=engines,
        features=["session", "resume"],
    )
    listen = Address.parse(settings.metrics_listen) if settings.metrics_listen else None

    with folders.opened(settings.kv_store) as kv_tiers:
        daemon, board = _build(
            settings,
            identity=identity,
            registry=registry,
            devices=devices,
            problems=[*devices.problems, *problems],
            worker_command=worker_command,
            memory=memory or devices,
            faults=faults,
            credentials=credentials,
            kv_tiers=kv_tiers,
        )
        registry.register(StatusCollector(board.report))
        async with (
            exposition(registry, listen) as port,
            faults.watching_loop(),
            daemon.serving(Address.parse(settings.listen), settings.advertised) as address,
        ):
            yield ServedNeuron(address, port, identity, registry, faults.broken)


def _build(
    settings: NeuronSettings,
    *,
    identity: neuron.NeuronIdentity,
    registry: CollectorRegistry,
    devices: Devices,
    problems: list[str],
    worker_command: WorkerCommand,
    memory: MemoryReader,
    faults: Faults,
    credentials: FleetCredentials | None,
    kv_tiers: tuple[KvTier, ...],
) -> tuple[Daemon, StatusBoard]:
    metrics = NeuronMetrics(registry)
    changes = Changes()
    instances = Instances(changes)
    supervisor = Supervisor(
        limits=settings.workers,
        memory_bytes=settings.workers.memory_bytes or machine_memory_bytes() * 9 // 10,
        device_faults=devices,
        faults=faults,
        command=worker_command,
        environment={LIBRARY_VARIABLE: settings.llamacpp.library},
    )
    board = StatusBoard(
        identity=identity,
        instances=instances,
        slots=lambda: supervisor.view,
        memory_budget_bytes=settings.memory_budget_bytes,
    )
    sources = sources_of(settings, lambda found: default_cache_tokens(found, settings))

    async def measure() -> None:
        board.note_devices(await asyncio.to_thread(devices.read))

    assignments = Assignments(
        engines=list(identity.engines),
        default_engine=settings.engine,
        devices=lambda: board.devices,
        measure=measure,
        settled=lambda spec: settled(spec, settings),
        gguf_gpus=devices.ggml_ids,
        most_layers=settings.llamacpp.gpu_layers,
    )
    renderers = Renderers(
        settings.templates, constraint_seconds=settings.constraint_seconds, faults=faults
    )
    worker_loads = WorkerLoads(instances=instances, assignments=assignments, renderers=renderers)
    recovery = Recovery(
        instances=instances,
        supervisor=supervisor,
        worker_loads=worker_loads,
        metrics=metrics,
        faults=faults,
    )
    loader = Loader(
        instances=instances,
        sources=sources,
        supervisor=supervisor,
        listener=recovery,
        settings=settings,
        assignments=assignments,
        worker_loads=worker_loads,
        measure=measure,
        metrics=metrics,
        kv_tiers=kv_tiers,
        ggml_ids=devices.ggml_ids,
    )
    unloader = Unloader(
        instances=instances,
        loader=loader,
        supervisor=supervisor,
        reclaiming=Reclaiming(reader=memory, instances=instances, supervisor=supervisor),
        measure=measure,
    )
    leader_epoch = LeaderEpoch()
    servicer = NeuronServicer(
        loader=loader,
        unloader=unloader,
        generations=Generations(instances=instances, settings=settings, metrics=metrics),
        measures=Measures(instances=instances, sources=sources, assignments=assignments),
        board=board,
        changes=changes,
        leader_epoch=leader_epoch,
        drain_seconds=settings.drain_seconds,
        faults=faults,
    )
    server = Server(
        service_names=[_SERVICE],
        metrics=RpcMetrics(registry, "neuron"),
        access=Access(credentials, METHODS),
    )
    server.add(add_NeuronServiceServicer_to_server, servicer)
    daemon = Daemon(
        server=server,
        close_sessions=servicer.close_sessions,
        instances=instances,
        loader=loader,
        unloader=unloader,
        recovery=recovery,
        supervisor=supervisor,
        renderers=renderers,
        membership=Membership(
            registries=settings.registry,
            board=board,
            changes=changes,
            leader_epoch=leader_epoch,
            faults=faults,
            credentials=credentials,
        ),
        board=board,
        devices=devices,
        sources=sources,
        problems=problems,
        measure=measure,
        drain_seconds=settings.drain_seconds,
        faults=faults,
    )
    return daemon, board
