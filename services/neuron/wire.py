"""Builds a neuron out of its settings: the only place that knows all parts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator

from prometheus_client import CollectorRegistry

from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1.neuron_service_pb2_grpc import add_NeuronServiceServicer_to_server
from cortex.v1.storage_service_pb2_grpc import add_StorageServiceServicer_to_server
from services.backplane.address import Address
from services.backplane.changes import Changes
from services.backplane.metrics import RpcMetrics, exposition, new_registry
from services.backplane.process.faults import Faults
from services.backplane.rpc.server import Server
from services.backplane.security.access import Access
from services.backplane.security.credentials import FleetCredentials
from services.backplane.tracing.spans import Tracer
from services.neuron.access import METHODS, NEURON_SERVICE
from services.neuron.daemon import Daemon
from services.neuron.devices.ggml import LIBRARY_VARIABLE, ask
from services.neuron.devices.inventory import Devices, importable_engines, machine_memory_bytes
from services.neuron.engine_api.model import KvTier
from services.neuron.engines.common.kv_store import folders
from services.neuron.instances import adopt
from services.neuron.instances.assign import Assignments
from services.neuron.instances.cache_board import CacheBoard
from services.neuron.instances.defaults import LoadDefaults
from services.neuron.instances.instances import Instances
from services.neuron.instances.load import Loader
from services.neuron.instances.read_ahead import ReadAhead
from services.neuron.instances.reclaim import MemoryReader, Reclaiming
from services.neuron.instances.recover import Recovery
from services.neuron.instances.unload import Unloader
from services.neuron.instances.worker_loads import WorkerLoads
from services.neuron.leader_epoch import LeaderEpoch
from services.neuron.membership.membership import Membership
from services.neuron.membership.report import StatusBoard, new_identity
from services.neuron.metrics import NeuronMetrics, StatusCollector
from services.neuron.rendering.renderer import Renderers
from services.neuron.servicer import NeuronServicer
from services.neuron.serving.generation_trace import GenerationTraces
from services.neuron.serving.generations import Generations
from services.neuron.serving.queries import Measures
from services.neuron.settings import NeuronSettings
from services.neuron.sources.disk_space import store_problems
from services.neuron.sources.schemes import hub_of, sources_of
from services.neuron.storage.fetches import Fetches
from services.neuron.storage.last_use import LastUse
from services.neuron.storage.listing import DiskListing
from services.neuron.storage.removal import StoredModelRemover
from services.neuron.storage.residency import Residency
from services.neuron.storage.servicer import STORAGE_SERVICE, StorageServicer
from services.neuron.storage.sharing import Sharing
from services.neuron.storage.unfinished import UnfinishedDownloads
from services.neuron.supervisor.process import WorkerCommand, python_worker
from services.neuron.supervisor.supervisor import Supervisor


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


@contextlib.asynccontextmanager
async def serving(
    settings: NeuronSettings,
    *,
    worker_command: WorkerCommand = python_worker,
    memory: MemoryReader | None = None,
    credentials: FleetCredentials | None = None,
    tracer: Tracer | None = None,
) -> AsyncGenerator[ServedNeuron]:
    """A neuron in this process; leaving the context drains and stops it.

    Args:
        settings: its settings.
        worker_command: command line of its workers.
        memory: who is asked what an unload has freed; None is the GPUs' driver.
        credentials: the fleet's; None speaks plain text and lets everybody in.
        tracer: takes the spans of what is served; None traces nothing.

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
    problems += await asyncio.to_thread(store_problems, settings.store)
    identity = new_identity(settings, engines)
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
            tracer=tracer,
        )
        registry.register(StatusCollector(board.report, board.energy))
        async with exposition(registry, settings.metrics_at) as port, faults.watching_loop():
            identity.metrics_address = settings.advertised_metrics(port)
            listen = Address.parse(settings.listen)
            async with daemon.serving(listen, settings.advertised) as address:
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
    tracer: Tracer | None,
) -> tuple[Daemon, StatusBoard]:
    metrics = NeuronMetrics(registry)
    instances = Instances(Changes())
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
        workers=supervisor,
        memory_budget_bytes=settings.memory_budget_bytes,
    )
    defaults = LoadDefaults(settings, lambda: board.devices)
    gguf = adopt.gguf_rules(settings, devices.ggml_ids, has_gpu=devices.has_gpu)
    hub = hub_of(settings, credentials)
    residency = Residency()
    sources = sources_of(
        settings,
        hub=hub,
        cache_tokens=defaults.cache_tokens,
        gpu_layers=gguf.gpu_layers_of,
        preferred=defaults.preferred,
        resident=residency.of,
    )

    async def measure() -> None:
        board.note_devices(await asyncio.to_thread(devices.read))

    assignments = Assignments(
        engines=list(identity.engines),
        default_engine=settings.engine,
        devices=lambda: board.devices,
        measure=measure,
        settled=defaults.settled,
        gguf=gguf,
    )
    renderers = Renderers(
        settings.templates, constraint_seconds=settings.constraint_seconds, faults=faults
    )
    worker_loads = WorkerLoads(instances=instances, assignments=assignments, renderers=renderers)
    caches = CacheBoard(instances)
    recovery = Recovery(
        instances=instances,
        caches=caches,
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
    listing = DiskListing(
        sources,
        instances,
        LastUse(settings.store),
        residency=residency,
        unfinished=UnfinishedDownloads(hub.store, settings.store, days=settings.unfinished_days),
        problems=problems,
        on_listed=board.note_stored,
    )
    relist = listing.offer_at_once
    fetches = Fetches(sources, relist)
    storage = StorageServicer(
        fetches=fetches,
        removal=StoredModelRemover(sources=sources, hub=hub, instances=instances, relist=relist),
        sharing=Sharing(hub.store, settings.sharing),
        leader_epoch=leader_epoch,
    )
    servicer = NeuronServicer(
        instances=instances,
        loader=loader,
        unloader=unloader,
        generations=Generations(
            instances=instances,
            settings=settings,
            metrics=metrics,
            faults=faults,
            traces=GenerationTraces(tracer),
            watts=supervisor.device_use.energy.watts,
        ),
        measures=Measures(instances=instances, sources=sources, assignments=assignments),
        board=board,
        caches=caches,
        read_ahead=ReadAhead(
            sources=sources,
            assignments=assignments,
            supervisor=supervisor,
            listener=recovery,
            faults=faults,
        ),
        changes=instances.changes,
        leader_epoch=leader_epoch,
        drain_seconds=settings.drain_seconds,
        faults=faults,
    )
    server = Server(
        service_names=[NEURON_SERVICE, STORAGE_SERVICE],
        metrics=RpcMetrics(registry, "neuron"),
        access=Access(credentials, METHODS),
        tracer=tracer,
    )
    server.add(add_NeuronServiceServicer_to_server, servicer)
    server.add(add_StorageServiceServicer_to_server, storage)
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
            changes=instances.changes,
            leader_epoch=leader_epoch,
            faults=faults,
            credentials=credentials,
        ),
        board=board,
        devices=devices,
        listing=listing,
        fetches=fetches,
        measure=measure,
        drain_seconds=settings.drain_seconds,
        faults=faults,
    )
    return daemon, board
