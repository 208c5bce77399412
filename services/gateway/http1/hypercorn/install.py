"""Puts the codec in place of Hypercorn's own."""

import asyncio
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from inspect import signature
from typing import Any

import hypercorn.asyncio.run
import hypercorn.asyncio.tcp_server
import hypercorn.protocol.h2
import hypercorn.protocol.h11
import structlog
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol

from services.gateway.http1.hypercorn import accepting
from services.gateway.http1.hypercorn.app_tasks import AppTaskGroup
from services.gateway.http1.hypercorn.codec import CodecConfig, HttptoolsCodec
from services.gateway.http1.hypercorn.counted_server import CountedServer
from services.gateway.http1.hypercorn.stock import SharingWSStream, StockH11
from services.gateway.http1.hypercorn.stock_h2 import StockH2

log = structlog.get_logger()

HYPERCORN_MINOR = "0.18"


def choose_codec(app: Any, config: Config, *rest: Any) -> HttptoolsCodec | StockH11:
    """Makes the codec of one connection: ours, or Hypercorn's, as its server is configured.

    Hypercorn calls it instead of the class, so that servers with different settings can run in one
    process.
    """
    if isinstance(config, CodecConfig) and config.http1 is not None:
        return HttptoolsCodec(app, config, *rest)
    return StockH11(app, config, *rest)


def install() -> bool:
    """Makes Hypercorn ask `choose_codec` and use the parts in `stock` and `stock_h2`; idempotent.

    Returns:
        False, with a warning in the log, where the installed Hypercorn is not the release that
        `seam` was written for. Every server then keeps Hypercorn's own codec, and the metric
        `cortex_gateway_http1_codec_info` says `stock`.
    """
    found = version("hypercorn")
    if not found.startswith(HYPERCORN_MINOR + ".") or not _same_constructor(H11Protocol):
        log.warning("http1.codec_not_installed", hypercorn=found, wanted=HYPERCORN_MINOR)
        return False
    # setattr, because these are names of types
    setattr(hypercorn.protocol, "H11Protocol", choose_codec)  # noqa: B010
    setattr(hypercorn.protocol, "H2Protocol", StockH2)  # noqa: B010
    setattr(hypercorn.protocol.h11, "WSStream", SharingWSStream)  # noqa: B010
    setattr(hypercorn.protocol.h2, "WSStream", SharingWSStream)  # noqa: B010
    setattr(hypercorn.asyncio.tcp_server, "TaskGroup", AppTaskGroup)  # noqa: B010
    setattr(hypercorn.asyncio.run, "TCPServer", CountedServer)  # noqa: B010
    setattr(hypercorn.asyncio.run, "asyncio", _Asyncio())  # noqa: B010
    return True


class _Asyncio:
    """asyncio as Hypercorn's server sees it: with another way to accept connections."""

    start_server = staticmethod(accepting.start_server)

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


def _same_constructor(stock: Callable[..., Awaitable[None]] | type[Any]) -> bool:
    return list(signature(stock).parameters) == list(signature(HttptoolsCodec).parameters)
