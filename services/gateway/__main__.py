"""`python -m services.gateway --config FILE`: one gateway until it is told to stop.

A process serves by itself, as one of several workers, or keeps the workers alive.
"""

from __future__ import annotations

import argparse
import gc
import os
import pathlib
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
from services.backplane.process.reload import SettingsReload
from services.backplane.security.credentials import own_credentials
from services.backplane.security.roles import Role
from services.backplane.settings import Document, SettingsError
from services.gateway.server import ListenError, new_event_loop
from services.gateway.settings import read
from services.gateway.wire import Gateway
from services.gateway.workers import Keeper, as_worker

# New objects before the collector looks: those of a few dozen concurrent requests.
_YOUNG_OBJECTS: Final = 10_000


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the gateway; the exit code."""
    parser = argparse.ArgumentParser(prog="cortex-gateway", description="Serves HTTP clients.")
    parser.add_argument("--config", type=pathlib.Path, help="cortex.toml")
    # what a keeper of several workers tells each of them
    parser.add_argument("--listen-descriptor", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--keeper", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    try:
        document = settings.load(arguments.config, os.environ)
        gateway, _ = read(document)
        logs.configure(document.section("log", logs.LogSettings), service="gateway")
        check_protobuf()
    except (SettingsError, ValueError) as error:
        lifecycle.complain(error)
        return lifecycle.EX_CONFIG
    if arguments.listen_descriptor is not None:
        return lifecycle.run(
            lambda shutdown: as_worker(
                run(document, shutdown, listen_descriptor=arguments.listen_descriptor),
                shutdown,
                keeper=arguments.keeper,
            ),
            loop_factory=new_event_loop,
        )
    if gateway.workers > 1:
        keeper = Keeper(gateway, sys.argv[1:] if argv is None else argv)
        return lifecycle.run(keeper.run)
    return lifecycle.run(lambda shutdown: run(document, shutdown), loop_factory=new_event_loop)


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
    document: Document, shutdown: Shutdown, *, listen_descriptor: int | None = None
) -> int:
    """Runs a gateway with its metrics endpoint; the exit code.

    Args:
        document: all settings; read again at SIGHUP.
        shutdown: ends it.
        listen_descriptor: a worker of several accepts from this socket, and its keeper tells its
            metrics.

    Raises:
        SettingsError: the settings cannot be used.
        PortTakenError: an address cannot be listened on.
    """
    settings, auth = read(document)
    credentials = own_credentials(document, Role.GATEWAY)
    log_settings = document.section("log", LogSettings)
    if listen_descriptor is not None:
        listen = f"fd://{listen_descriptor}"
        settings = msgspec.structs.replace(settings, listen=listen, metrics_listen="")
    try:
        gateway = Gateway(settings, auth, log_settings=log_settings, credentials=credentials)
    except ListenError as error:
        raise PortTakenError(str(error)) from error
    _spare_the_collector()
    metrics_listen = Address.parse(settings.metrics_listen) if settings.metrics_listen else None
    try:
        async with exposition(gateway.registry, metrics_listen):
            with reloading(_reload(document, gateway)):
                await gateway.serve(shutdown)
    finally:
        gateway.close()
    return EX_SOFTWARE if gateway.faults.broken.is_set() else 0


def _reload(document: Document, gateway: Gateway) -> SettingsReload:
    """Keys, levels and certificates are taken in at SIGHUP; all else needs a restart."""
    return SettingsReload(
        document,
        sections=("gateway", "auth", "fleet", "log"),
        check=read,
        live={
            "auth": lambda fresh: gateway.use_keys(read(fresh)[1]),
            "log": lambda fresh: gateway.use_log(fresh.section("log", LogSettings)),
        },
        always=(gateway.reload_certificate,),
    )


def _spare_the_collector() -> None:
    """Keeps what lives as long as the process out of every collection.

    A request leaves no cycles behind, so that the collector has little to do but look.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 50)


if __name__ == "__main__":
    sys.exit(main())
