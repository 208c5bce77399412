"""`python -m services.gateway --config FILE`: one gateway until it is told to stop.

A process serves by itself, as one of several workers, or keeps the workers alive.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import pathlib
import signal
import sys
from collections.abc import Sequence
from typing import Final

import msgspec
from google.protobuf.internal import api_implementation

from services.backplane import logs, settings
from services.backplane.address import Address, PortTakenError
from services.backplane.logs import LogSettings
from services.backplane.metrics import exposition
from services.backplane.process import lifecycle
from services.backplane.process.lifecycle import EX_SOFTWARE, Shutdown, reloading
from services.backplane.process.memory import return_large_blocks
from services.backplane.process.reload import Reloaded
from services.backplane.process.service_manager import notify, take_listener
from services.backplane.security.audit import AuditSettings
from services.backplane.security.credentials import own_credentials
from services.backplane.security.roles import Role
from services.backplane.settings import Document, SettingsError
from services.backplane.tracing.settings import tracing
from services.backplane.tracing.spans import Tracer
from services.gateway.handover import Handover, WorkerHandover
from services.gateway.server import ListenError, address_of, new_event_loop
from services.gateway.settings import read
from services.gateway.wire import Gateway
from services.gateway.workers import Keeper, as_worker

# New objects before the collector looks: those of a few dozen concurrent requests.
_YOUNG_OBJECTS: Final = 10_000


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the gateway; the exit code."""
    parser = argparse.ArgumentParser(prog="cortex-gateway", description="Serves HTTP clients.")
    parser.add_argument("--config", type=pathlib.Path, help="cortex.toml")
    # what a keeper of several workers tells each of them, and a gateway its successor
    parser.add_argument("--listen-descriptor", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--keeper", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--ready-descriptor", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    config = arguments.config
    try:
        document = settings.load(arguments.config, os.environ)
        listener = arguments.listen_descriptor or take_listener()
        gateway, _ = read(document, listens=None if listener is None else address_of(listener))
        logs.configure(document.section("log", logs.LogSettings), service="gateway")
        check_protobuf()
    except (SettingsError, ValueError, OSError) as error:
        lifecycle.complain(error)
        return lifecycle.EX_CONFIG
    return_large_blocks()
    if arguments.keeper:
        return lifecycle.run(
            lambda shutdown: as_worker(
                run(
                    document,
                    shutdown,
                    handover=WorkerHandover(
                        ready_descriptor=arguments.ready_descriptor,
                        take_socket=arguments.listen_descriptor,
                    ),
                ),
                shutdown,
                keeper=arguments.keeper,
            ),
            loop_factory=new_event_loop,
        )
    handover = Handover(
        [] if config is None else ["--config", str(config)],
        ready_descriptor=arguments.ready_descriptor,
        take_socket=listener,
    )
    if gateway.workers > 1:
        return lifecycle.run(Keeper(gateway, handover).run)
    return lifecycle.run(
        lambda shutdown: run(document, shutdown, handover=handover), loop_factory=new_event_loop
    )


def check_protobuf() -> None:
    """Refuses the pure Python protobuf, which is 12 to 25 times as slow.

    Raises:
        SettingsError: it is installed.
    """
    kind: str = api_implementation.Type()
    if kind != "upb":
        raise SettingsError(
            f"protobuf runs on its {kind!r} implementation; the gateway needs `upb`"
            " (unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION, install a binary wheel)"
        )


async def run(
    document: Document,
    shutdown: Shutdown,
    *,
    handover: Handover | WorkerHandover | None = None,
) -> int:
    """Runs a gateway with its metrics endpoint; the exit code.

    Args:
        document: all settings; read again at SIGHUP.
        shutdown: ends it.
        handover: from whom it takes its socket, and how it gives it to a successor; None where
            neither can be.

    Raises:
        SettingsError: the settings cannot be used.
        PortTakenError: an address cannot be listened on.
    """
    with tracing(document, "gateway") as tracer:
        return await _run(document, shutdown, handover=handover, tracer=tracer)


async def _run(
    document: Document,
    shutdown: Shutdown,
    *,
    handover: Handover | WorkerHandover | None,
    tracer: Tracer | None,
) -> int:
    settings, auth = read(document)
    credentials = own_credentials(document, Role.GATEWAY)
    log_settings = document.section("log", LogSettings)
    if isinstance(handover, WorkerHandover):  # its keeper tells its metrics
        settings = msgspec.structs.replace(settings, metrics_listen="")
    if handover is not None and handover.take_socket is not None:
        settings = msgspec.structs.replace(settings, listen=f"fd://{handover.take_socket}")
    try:
        gateway = Gateway(
            settings,
            auth,
            log_settings=log_settings,
            credentials=credentials,
            audit=document.section("audit", AuditSettings),
            document=document,
            tracer=tracer,
            reload_all=_pass_to_keeper if isinstance(handover, WorkerHandover) else None,
        )
    except ListenError as error:
        raise PortTakenError(str(error)) from error
    _spare_the_collector()
    metrics_listen = Address.parse(settings.metrics_listen) if settings.metrics_listen else None
    try:
        if handover is None:
            notify("READY=1")
            async with exposition(gateway.registry, metrics_listen):
                with reloading(gateway.reload):
                    await gateway.serve(shutdown)
        else:
            async with handover.following(
                functools.partial(exposition, gateway.registry, metrics_listen),
                is_ready=lambda: gateway.readiness.problem() is None,
                listener=gateway.server.listener,
                shutdown=shutdown,
                leave=gateway.draining.allow_handover_time,
            ):
                with reloading(gateway.reload):
                    await gateway.serve(shutdown)
    finally:
        gateway.close()
    return EX_SOFTWARE if gateway.faults.broken.is_set() else 0


def _pass_to_keeper() -> Reloaded:
    """Has the keeper tell all workers, of which this is one."""
    os.kill(os.getppid(), signal.SIGHUP)
    return Reloaded()


def _spare_the_collector() -> None:
    """Keeps what lives as long as the process out of every collection.

    A request leaves no cycles behind, so that the collector has little to do but look.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 50)


if __name__ == "__main__":
    sys.exit(main())
