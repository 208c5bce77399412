"""The MCP servers that an editor gives a session, and their tools.

The `mcp` package is imported only when there is a server: it takes half a second.

Each server has a task of its own, which enters and leaves its connection; calls come from the
turn. A server that fails, at its start or later, is logged and has no tools; the call that finds
it gone says so. Nothing else depends on it.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import acp
import acp.schema
import structlog
from typing_extensions import override

from services.agent.core.editor import Content
from services.agent.core.history import ImagePart
from services.agent.core.modes import Effect
from services.agent.core.text import clean, cut_middle, one_line
from services.agent.core.workspace import Workspace
from services.agent.endpoints.endpoint import ToolSpec
from services.agent.tools.tool import Preview, Tool, ToolContext, ToolError, ToolOutcome
from services.backplane.timeouts import timeout

if TYPE_CHECKING:
    import mcp
    import mcp.types

log = structlog.get_logger(__name__)

ServerSpec = (
    acp.schema.HttpMcpServer
    | acp.schema.SseMcpServer
    | acp.schema.AcpMcpServer
    | acp.schema.McpServerStdio
)

_CONNECT_SECONDS = 20.0
_CALL_SECONDS = 600.0
_CLOSE_SECONDS = 5.0
_LONGEST_NAME = 64
_MOST_PICTURES = 8  # of one result
_MOST_PICTURE_CHARACTERS = 8 * 1024 * 1024  # base64, of one result
_CONNECTION_CLOSED = -32000  # of the protocol's own client


class McpTool(Tool):
    """One tool of an MCP server."""

    kind: acp.schema.ToolKind = "other"

    def __init__(
        self, server: str, client: "mcp.Client", tool: "mcp.types.Tool", gone: asyncio.Event
    ) -> None:
        name = re.sub(r"[^A-Za-z0-9_-]", "_", f"mcp__{server}__{tool.name}")[:_LONGEST_NAME]
        self.spec = ToolSpec(name, tool.description or tool.name, tool.input_schema)
        claims_reading = tool.annotations is not None and tool.annotations.read_only_hint is True
        self.effect = Effect.FOREIGN_READ if claims_reading else Effect.FOREIGN
        self._client = client
        self._server = server
        self._gone = gone  # set when the server turns out to have ended
        self._name = tool.name
        self._title = f"{server}: {tool.title or tool.name}"

    @override
    def preview(self, arguments: dict[str, Any], workspace: Workspace) -> Preview:
        return Preview(one_line(self._title, 100))

    @override
    async def diff(self, arguments: dict[str, Any], context: ToolContext) -> Sequence[Content]:
        """What a server will change is unknown."""
        return ()

    @override
    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolOutcome:
        import mcp

        context.permit(None)
        try:
            async with timeout(_CALL_SECONDS):
                result = await self._client.call_tool(self._name, arguments)
        except TimeoutError as error:
            raise ToolError(f"{self._title} did not answer in {_CALL_SECONDS:g} s") from error
        except mcp.MCPError as error:
            if error.code != _CONNECTION_CLOSED:
                raise ToolError(f"{self._title} failed: {error}") from error
            self._gone.set()
            reason = f"the MCP server {self._server} has ended; its tools are gone in this session"
            raise ToolError(reason) from error
        except (RuntimeError, OSError, ValueError) as error:
            raise ToolError(f"{self._title} failed: {error}") from error
        shown, pictures = _read(result.content)
        text = cut_middle(clean(shown), context.output_bytes)
        return ToolOutcome(text, bool(result.is_error), pictures=pictures)


class McpServers:
    """The servers of one session. Close it in the end; closing twice is harmless."""

    def __init__(
        self, servers: Sequence[ServerSpec], *, cwd: Path, environment: Mapping[str, str]
    ) -> None:
        self._environment = environment
        self._cwd = cwd
        self._endings = [asyncio.Event() for _ in servers]  # it was closed, or is gone by itself
        self._tools: dict[str, list[Tool]] = {}
        self._failed: list[str] = []
        self._settled = [asyncio.Event() for _ in servers]
        self._tasks = [
            asyncio.create_task(self._serve(server, settled, ending), name=f"mcp {server.name}")
            for server, settled, ending in zip(servers, self._settled, self._endings, strict=True)
        ]

    async def tools(self) -> list[Tool]:
        """Returns the tools, once every server has connected or failed or run out of time."""
        for settled in self._settled:
            await settled.wait()
        return [tool for tools in self._tools.values() for tool in tools]

    def take_failed(self) -> list[str]:
        """Returns the names of the servers that could not be reached, each once."""
        failed, self._failed = self._failed, []
        return failed

    async def close(self) -> None:
        """Disconnects; a server that does not leave in time is abandoned to its task's end."""
        for ending in self._endings:
            ending.set()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
            for task in left:
                task.cancel()

    async def _serve(
        self, server: ServerSpec, settled: asyncio.Event, ending: asyncio.Event
    ) -> None:
        """Holds one connection from its beginning to its end."""
        import mcp

        try:
            async with (
                timeout(_CONNECT_SECONDS) as deadline,
                mcp.Client(self._transport(server), cache=None) as client,
            ):
                listed = await client.list_tools()
                self._tools[server.name] = [
                    McpTool(server.name, client, tool, ending) for tool in listed.tools
                ]
                deadline.reschedule(None)
                settled.set()
                log.info("mcp server connected", server=server.name, tools=len(listed.tools))
                await ending.wait()
                self._tools.pop(server.name, None)
                log.info("mcp server disconnected", server=server.name)
        except TimeoutError:
            self._failed.append(server.name)
            log.warning("mcp server did not connect in time", server=server.name)
        except Exception as error:  # a server's failure is only its own
            if not settled.is_set():
                self._failed.append(server.name)
            log.warning("mcp server failed", server=server.name, exc_info=error)
        finally:
            self._tools.pop(server.name, None)
            settled.set()

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
        limits = httpx2.Timeout(30.0, read=_CALL_SECONDS)
        client = httpx2.AsyncClient(headers=headers, timeout=limits)
        return streamable_http_client(server.url, http_client=client)


def _read(blocks: Sequence[Any]) -> tuple[str, tuple[ImagePart, ...]]:
    """Returns what a model reads of a result, and the pictures, as many as one request carries."""
    lines: list[str] = []
    pictures: list[ImagePart] = []
    room = _MOST_PICTURE_CHARACTERS
    for block in blocks:
        if block.type != "image":
            lines.append(_as_text(block))
        elif len(pictures) < _MOST_PICTURES and len(block.data) <= room:
            room -= len(block.data)
            pictures.append(ImagePart(block.data, block.mime_type))
        else:
            lines.append("[a picture, left out: too many or too large]")
    return "\n".join(lines), tuple(pictures)


def _as_text(block: Any) -> str:
    if block.type == "text":
        return str(block.text)
    if block.type == "resource":
        text = getattr(block.resource, "text", None)
        return text if isinstance(text, str) else f"[resource {block.resource.uri}]"
    return f"[{block.type}]"
