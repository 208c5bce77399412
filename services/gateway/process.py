"""One gateway process: its settings and what it takes in of them later, its metrics, its end."""

from __future__ import annotations

import gc
from typing import Final

import msgspec

from services.backplane.address import Address, PortTakenError
from services.backplane.logs import LogSettings
from services.backplane.metrics import exposition
from services.backplane.process.lifecycle import EX_SOFTWARE, Shutdown, reloading
from services.backplane.process.reload import SettingsReload
from services.backplane.security.credentials import own_credentials
from services.backplane.security.roles import Role
from services.backplane.settings import Document
from services.gateway.server import ListenError
from services.gateway.settings import read
from services.gateway.wire import Gateway

# New objects before the collector looks: those of a few dozen concurrent requests.
_YOUNG_OBJECTS: Final = 10_000


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
