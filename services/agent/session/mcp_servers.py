"""The MCP servers that an editor gives a session, and their tools.

The `mcp` package is imported only when there is a server: it takes half a second.

Each server has a task of its own, which enters and leaves its connection; calls come from the
turn. A server that fails, at its start or later, is logged and has no tools; whoever finds it
gone says so, be it the ping before a round or a call. One over HTTP, which may have ended only the
session, is then connected to anew, once. Nothing else depends on it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import acp
import acp.schema
import structlog

from services.agent.session.mcp_tools import CALL_SECONDS, McpTool, has_ended, listed
from services.agent.tools.tool import Tool, ToolError
from services.backplane.timeouts import timeout

if TYPE_CHECKING:
    import mcp

log = structlog.get_logger(__name__)

ServerSpec = (
    acp.schema.HttpMcpServer
    | acp.schema.SseMcpServer
    | acp.schema.AcpMcpServer
    | acp.schema.McpServerStdio
)

_CONNECT_SECONDS = 20.0
_CLOSE_SECONDS = 5.0
_PING_SECONDS = 0.5  # that a round waits to hear which servers are there


class McpServers:
    """The servers of one session. Close it in the end; closing twice is harmless."""

    def __init__(
        self, servers: Sequence[ServerSpec], *, cwd: Path, environment: Mapping[str, str]
    ) -> None:
        self._environment = environment
        self._cwd = cwd
        names = _distinct([server.name for server in servers])
        self._endings = [asyncio.Event() for _ in servers]  # it was closed, or is gone by itself
        self._tools: dict[str, list[Tool]] = {}
        self._connected: dict[str, tuple[mcp.Client, asyncio.Event]] = {}
        self._pings: dict[str, asyncio.Task[bool]] = {}
        self._failed: list[str] = []
        self._ended: list[str] = []
        self._settled = {name: asyncio.Event() for name in names}
        self._renewed = {
            name
            for name, server in zip(names, servers, strict=True)
            if isinstance(server, acp.schema.HttpMcpServer)
        }
        self._is_closing = False
        self._tasks = [
            asyncio.create_task(self._serve(*each), name=f"mcp {each[0]}")
            for each in zip(names, servers, self._endings, strict=True)
        ]

    async def tools(self) -> list[Tool]:
        """Returns the tools, once every server has connected or failed or run out of time.

        Servers that have ended since are left out. One that is only slow to answer is not asked
        again before it has answered.
        """
        await self._are_settled()
        await self._leave_out_ended()
        await self._are_settled()
        return [tool for tools in self._tools.values() for tool in tools]

    def take_failed(self) -> list[str]:
        """Returns the names of the servers that could not be reached, each once."""
        failed, self._failed = self._failed, []
        return failed

    def take_ended(self) -> list[str]:
        """Returns the names of the servers that were there and have ended, each once."""
        ended, self._ended = self._ended, []
        return ended

    async def close(self) -> None:
        """Disconnects; a server that does not leave in time is abandoned to its task's end."""
        self._is_closing = True
        for ending in self._endings:
            ending.set()
        for ping in self._pings.values():
            ping.cancel()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
            for task in left:
                task.cancel()

    async def _are_settled(self) -> None:
        for settled in self._settled.values():
            await settled.wait()

    async def _leave_out_ended(self) -> None:
        asked = {
            name: asyncio.create_task(_is_gone(client), name=f"mcp ping {name}")
            for name, (client, _) in self._connected.items()
            if name not in self._pings
        }
        self._pings |= asked
        if asked:  # one that has not answered yet is not waited for in every round
            await asyncio.wait(asked.values(), timeout=_PING_SECONDS)
        for name, ping in [each for each in self._pings.items() if each[1].done()]:
            del self._pings[name]
            if ping.result() and name in self._connected:
                self._connected.pop(name)[1].set()
                del self._tools[name]
                if name in self._renewed:
                    self._settled[name].clear()
                else:
                    self._ended.append(name)

    async def _serve(self, name: str, server: ServerSpec, ending: asyncio.Event) -> None:
        """Holds one server's connection, and over HTTP the next one where it is found ended."""
        await self._connection(name, server, ending)
        while ending.is_set() and name in self._renewed and not self._is_closing:
            ending.clear()
            await self._connection(name, server, ending)

    async def _connection(self, name: str, server: ServerSpec, ending: asyncio.Event) -> None:
        """Holds one connection from its beginning to its end."""
        import mcp

        settled = self._settled[name]
        try:
            async with (
                timeout(_CONNECT_SECONDS) as deadline,
                mcp.Client(self._transport(server), cache=None) as client,
            ):
                tools: list[Tool] = [
                    McpTool(name, client, tool, ending) for tool in await listed(client)
                ]
                self._tools[name] = tools
                self._connected[name] = (client, ending)
                deadline.reschedule(None)
                settled.set()
                log.info("mcp server connected", server=name, tools=len(tools))
                await ending.wait()
                self._forget(name)
                if name in self._renewed and not self._is_closing:
                    settled.clear()
                log.info("mcp server disconnected", server=name)
        except TimeoutError:
            self._failed.append(name)
            log.warning("mcp server did not connect in time", server=name)
        except Exception as error:  # a server's failure is only its own
            if not settled.is_set():
                self._failed.append(name)
            log.warning("mcp server failed", server=name, exc_info=error)
        finally:
            self._forget(name)
            if self._is_closing or not (ending.is_set() and name in self._renewed):
                settled.set()

    def _forget(self, name: str) -> None:
        self._tools.pop(name, None)
        self._connected.pop(name, None)

    def _transport(self, server: ServerSpec) -> Any:
        import httpx2
        from mcp.client.sse import sse_client
        from mcp.client.stdio import StdioServerParameters
        from mcp.client.streamable_http import streamable_http_client

        if isinstance(server, acp.schema.McpServerStdio):
            given = {each.name: each.value for each in server.env}
            return StdioServerParameters(
                command=server.command,
                args=server.args,
                env={**self._environment, **given},
                cwd=self._cwd,
            )
        if isinstance(server, acp.schema.AcpMcpServer):
            raise ToolError("MCP servers inside the ACP connection are not supported")
        headers = {each.name: each.value for each in server.headers}
        if isinstance(server, acp.schema.SseMcpServer):
            return sse_client(server.url, headers=headers)
        limits = httpx2.Timeout(30.0, read=CALL_SECONDS)
        client = httpx2.AsyncClient(headers=headers, timeout=limits)
        return streamable_http_client(server.url, http_client=client)


def _distinct(names: Sequence[str]) -> list[str]:
    """Returns names of which none is twice: the second `x` is `x-2`."""
    taken: list[str] = []
    for name in names:
        number, one = 1, name
        while one in taken or (number > 1 and one in names):
            number += 1
            one = f"{name}-{number}"
        taken.append(one)
    return taken


async def _is_gone(client: "mcp.Client") -> bool:
    """Whether the connection has ended; any answer, a refusal too, comes from one that is there."""
    import mcp

    try:
        # the newest version of the protocol has no pings: its refusal is an answer too
        await client.send_ping()  # pyright: ignore[reportDeprecated]
    except mcp.MCPError as error:
        return has_ended(error)
    except (RuntimeError, OSError, ValueError):
        return True
    return False
