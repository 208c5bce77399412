"""Serves an ASGI app: sockets, TLS, HTTP codec, and a shutdown that lets answers finish."""

from __future__ import annotations

import asyncio
import logging
import os
import pathlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec
import structlog
from hypercorn.asyncio.run import worker_serve
from hypercorn.config import Config, Sockets
from hypercorn.utils import wrap_app

from services.backplane.address import Address, own_host_name
from services.backplane.security.exposure import is_loopback
from services.backplane.settings import SettingsError
from services.gateway.http1.budget import ClientBudgets
from services.gateway.http1.hypercorn.codec import CodecConfig
from services.gateway.http1.hypercorn.install import install
from services.gateway.http1.limits import ErrorBody, Http1Limits, plain_error
from services.gateway.http1.settings import Http1Settings
from services.gateway.settings import GatewaySettings

log = structlog.get_logger()

Http1Codec: TypeAlias = Literal["fast", "stock"]
Stamps: TypeAlias = tuple[tuple[int, int, int], ...]

# The default of 100 makes a burst of 256 connections wait for retransmitted SYNs, 1 to 2 s.
BACKLOG = 4096


class ListenError(Exception):
    """The server cannot listen where it was told to."""

    def __init__(self, listen: str, reason: str) -> None:
        super().__init__(f"cannot listen on {listen}: {reason}")
        self.listen = listen
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """Files in PEM. With `client_ca` every client has to show a certificate of that CA."""

    certificate: str
    key: str
    key_password: str | None = None
    client_ca: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How one server listens and ends.

    Attributes:
        listen: `host:port`, `[v6]:port`, `unix:path`, or `fd://N` for an open socket; port 0 takes
            a free one.
        http1_codec: `fast` is ours on httptools, `stock` is Hypercorn's on h11, which knows
            of the limits only the size of a head.
        error_body: words what the fast codec refuses by itself.
        limits: bounds of one HTTP/1.1 connection.
        drain_seconds: how long answers may go on after the shutdown was requested.
        tls: None serves plain HTTP.
        shares: what all connections share; None bounds nothing of it.
        max_streams: concurrent requests of one HTTP/2 connection.
    """

    listen: str
    http1_codec: Http1Codec = "fast"
    limits: Http1Limits = field(default_factory=Http1Limits)
    error_body: ErrorBody = plain_error
    drain_seconds: float = 30.0
    max_streams: int = 100
    shares: ClientBudgets | None = None
    tls: TlsOptions | None = None

    @classmethod
    def of(
        cls, settings: GatewaySettings, shares: ClientBudgets, error_body: ErrorBody
    ) -> ServerOptions:
        """The options that the settings ask for."""
        tls = settings.tls
        return cls(
            listen=settings.listen,
            http1_codec=settings.http1_codec,
            # the app words a body that is too large in its own envelope; this is the backstop
            limits=Http1Limits(body_bytes=settings.max_body_bytes),
            error_body=error_body,
            drain_seconds=settings.drain_seconds,
            shares=shares,
            tls=None if tls is None else TlsOptions(**msgspec.structs.asdict(tls)),
        )


def build_config(options: ServerOptions) -> CodecConfig:
    """Translates options to Hypercorn's configuration."""
    config = CodecConfig()
    limits = options.limits
    config.bind = [options.listen]
    config.backlog = BACKLOG
    config.accesslog = None
    # The logger itself, not its name: Hypercorn would give a name a handler of its own.
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.keep_alive_timeout = limits.keep_alive_seconds
    config.keep_alive_max_requests = limits.keep_alive_requests
    config.h11_max_incomplete_size = limits.head_bytes
    config.h2_max_concurrent_streams = options.max_streams
    config.graceful_timeout = options.drain_seconds
    config.shares = options.shares
    config.refusals = Http1Settings(limits=limits, error_body=options.error_body)
    if install() and options.http1_codec == "fast":
        config.http1 = config.refusals
    if options.tls is not None:
        _add_tls(config, options.tls)
    return config


def _add_tls(config: Config, tls: TlsOptions) -> None:
    import ssl

    config.certfile = tls.certificate
    config.keyfile = tls.key
    config.keyfile_password = tls.key_password
    if tls.client_ca is not None:
        config.ca_certs = tls.client_ca
        config.verify_mode = ssl.CERT_REQUIRED


class HttpServer:
    """One listening address and the app behind it.

    It listens from construction on: clients that connect before `serve` runs wait in the
    backlog, and the address is known (port 0) before the app starts.
    """

    def __init__(self, app: Any, options: ServerOptions) -> None:
        """Binds.

        Raises:
            ListenError: the address is taken, forbidden or not one of this machine's, or a
                TLS file cannot be read.
        """
        self._app = app
        self._options = options
        self._config = build_config(options)
        self._stamps = () if options.tls is None else _stamps(options.tls)
        self._refused: Stamps = ()
        try:
            self._config.create_ssl_context()
            self._sockets: Sockets = self._config.create_sockets()
        except (OSError, ValueError) as error:
            raise ListenError(options.listen, str(error)) from error
        for listener in self._listeners:
            listener.listen(BACKLOG)

    @property
    def _listeners(self) -> list[socket.socket]:
        return [*self._sockets.secure_sockets, *self._sockets.insecure_sockets]

    @property
    def address(self) -> str:
        """`host:port` or `unix:path` as it was bound; never port 0."""
        name = self._listeners[0].getsockname()
        if isinstance(name, str):
            return f"unix:{name}"
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{host}:{name[1]}"

    @property
    def listener(self) -> int:
        """File descriptor of the listening socket."""
        return self._listeners[0].fileno()

    @property
    def drain_seconds(self) -> float:
        """How long running answers may go on from the shutdown on."""
        return self._config.graceful_timeout

    @drain_seconds.setter
    def drain_seconds(self, seconds: float) -> None:
        self._config.graceful_timeout = seconds

    @property
    def http1_codec(self) -> Literal["direct", "stock"]:
        """Which codec serves HTTP/1.1: ours (`direct`), or Hypercorn's own (`stock`)."""
        return "stock" if self._config.http1 is None else "direct"

    def reload_certificate(self) -> None:
        """Shows new clients the certificate that its file has now; does nothing without TLS.

        Raises:
            SettingsError: certificate or key cannot be used; the old one stays.
        """
        try:
            self._config.reload_certificate()
        except (OSError, ValueError) as error:
            raise SettingsError(f"gateway.tls: {self._config.certfile}: {error}") from error

    async def follow_certificate(self) -> None:
        """Shows new clients another certificate when its files have changed.

        Files that do not belong together, as while one of them is being replaced, are looked at
        again the next time.
        """
        tls = self._options.tls
        if tls is None:
            return
        seen = _stamps(tls)
        if seen == self._stamps:
            return
        try:
            self.reload_certificate()
        except SettingsError as error:
            if seen != self._refused:
                log.warning("certificate.refused", detail=f"{error}. The old one is shown.")
            self._refused = seen
            return
        self._stamps = seen
        log.info("certificate.reloaded", path=tls.certificate)

    async def serve(self, shutdown: Callable[[], Awaitable[object]]) -> None:
        """Serves until `shutdown` returns, then drains.

        Order of the end: no new connection, idle ones close, running answers finish or are
        cut after `drain_seconds`, the app's lifespan ends. Cancelling it ends without
        draining.
        """
        try:
            await worker_serve(
                wrap_app(self._app, self._config.wsgi_max_body_size, "asgi"),
                self._config,
                sockets=self._sockets,
                shutdown_trigger=shutdown,
            )
        finally:
            self.close()

    def close(self) -> None:
        """Stops listening; idempotent."""
        for listener in self._listeners:
            listener.close()


def _stamps(tls: TlsOptions) -> Stamps:
    """What tells a file of the certificate from the one that was there before."""
    found: list[tuple[int, int, int]] = []
    for name in (tls.certificate, tls.key):
        try:
            told = pathlib.Path(name).stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((told.st_ino, told.st_mtime_ns, told.st_size))
    return tuple(found)


def own_names(listen: str, allowed: Sequence[str]) -> Sequence[str] | None:
    """The names by which what listens there may be called; None: by any."""
    if allowed or _is_on_loopback(listen):
        return (*allowed, own_host_name(), socket.gethostname())
    return None


def _is_on_loopback(listen: str) -> bool:
    """True for a TCP address that nothing but this machine reaches."""
    if listen.startswith("fd://"):
        address = address_of(int(listen.removeprefix("fd://")))
    else:
        address = Address.parse(listen)
    return not address.is_unix and is_loopback(address)


def address_of(descriptor: int) -> Address:
    """Where an open socket listens.

    Raises:
        OSError: it is no socket.
    """
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        name = listener.getsockname()
    return Address(name[0], name[1]) if isinstance(name, tuple) else Address(str(name), None)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Makes uvloop's loop where it is installed, else asyncio's: for `asyncio.Runner`."""
    try:
        import uvloop
    except ImportError:
        log.warning("uvloop.missing", effect="requests cost about a fifth more CPU")
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
