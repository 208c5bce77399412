"""The class that is put in place of `hypercorn.protocol.H11Protocol`."""

import asyncio
from collections.abc import Awaitable, Callable
from ssl import SSLContext
from typing import Any, cast

from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup, WorkerContext
from typing_extensions import override

from services.gateway.http1.budget import ClientBudgets
from services.gateway.http1.connection import Connection
from services.gateway.http1.exchange import Exchange
from services.gateway.http1.hypercorn.seam import TcpSeam
from services.gateway.http1.hypercorn.stock import StockH11
from services.gateway.http1.limits import Refused
from services.gateway.http1.scope import ConnectionPeer, build_scope
from services.gateway.http1.settings import Http1Settings


class CodecConfig(Config):
    """Hypercorn's configuration with the codec's own.

    Attributes:
        http1: None leaves HTTP/1.1 to stock h11.
        shares: what the connections share; None bounds nothing of it.
        refusals: words what is refused before any codec has a connection.
    """

    http1: Http1Settings | None = None
    shares: ClientBudgets | None = None
    refusals: Http1Settings | None = None
    _tls: SSLContext | None = None

    @override
    def create_ssl_context(self) -> SSLContext | None:
        self._tls = super().create_ssl_context()
        return self._tls

    def reload_certificate(self) -> None:
        """Reads certificate and key again, for the connections that come from now on.

        Raises:
            OSError: they cannot be read or do not belong together; the old ones stay.
        """
        if self._tls is None or self.certfile is None:
            return
        super().create_ssl_context()  # a mistake must not reach the context that serves
        self._tls.load_cert_chain(self.certfile, self.keyfile, self.keyfile_password)


class HttptoolsCodec:
    """Serves one of Hypercorn's connections with our `Connection`; hands other protocols over.

    The stock codec takes the connection at the first request that asks for another protocol
    (WebSocket, an HTTP/2 preface) and keeps it.
    """

    def __init__(
        self,
        app: AppWrapper,
        config: CodecConfig,
        context: WorkerContext,
        task_group: TaskGroup,
        connection_state: ConnectionState,
        ssl: bool,  # noqa: FBT001 - Hypercorn calls by position
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
        send: Callable[[Event], Awaitable[None]],
    ) -> None:
        self._arguments = (
            app,
            config,
            context,
            task_group,
            connection_state,
            ssl,
            client,
            server,
            send,
        )
        self._app = app
        self._config = config
        self._context = context
        self._task_group = task_group
        self._peer = ConnectionPeer(
            "https" if ssl else "http",
            config.root_path,
            client,
            server,
            cast("dict[str, Any]", connection_state),
        )
        self._seam = TcpSeam(send)
        self._connection: Connection | None = None
        self._stock: StockH11 | None = None

    async def initiate(self) -> None:
        """Hypercorn: the connection is accepted, and TLS is up."""
        transport = self._seam.transport
        connection = self._connection = Connection(
            settings=self._config.http1 or Http1Settings(),
            transport=transport,
            run_app=self._spawn,
            hand_over=self._hand_over,
            on_lost=self._seam.connection_lost,
        )
        early, ended = self._seam.take_over(connection, self._until_terminated)
        if early:
            connection.data_received(early)
        if ended:
            connection.eof_received()

    async def handle(self, event: Event) -> None:
        """Hypercorn: the stream has something, which is only the end unless it is stock's."""
        if self._stock is not None:
            await self._stock.handle(event)
        elif isinstance(event, Closed):
            await self._seam.stop_watch()
        elif isinstance(event, RawData) and self._connection is not None:
            self._connection.data_received(event.data)

    async def _until_terminated(self) -> None:
        """Drains at shutdown. Runs in the place of Hypercorn's idle task."""
        await self._context.terminated.wait()
        if self._connection is not None:
            self._connection.drain()
            await asyncio.sleep(self._config.graceful_timeout)
            self._connection.writer.abort()

    def _spawn(self, exchange: Exchange) -> None:
        self._task_group.spawn(self._run, exchange)

    async def _run(self, exchange: Exchange) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            scope = build_scope(exchange.head, self._peer, exchange)
            # Starlette's open mappings meet Hypercorn's closed TypedDicts here.
            app: Any = self._app
            await app(scope, exchange.receive, exchange.send, _no_threads, _no_threads)
        except Refused as refused:
            connection.answer_instead(exchange, refused)
        except Exception:  # noqa: BLE001 - the root of the app's task
            await self._config.log.exception("Error in ASGI Framework")
        finally:
            connection.app_returned(exchange)

    def _hand_over(self, data: bytes) -> None:
        paused = self._connection is not None and self._connection.writer.write_paused
        self._stock = StockH11(*self._arguments)
        self._seam.give_back(data, write_paused=paused)


def _no_threads(*_: object) -> None:
    raise RuntimeError("only ASGI apps are served here")
