"""The tools of one MCP server: how a model calls them, and what it reads of what they answer."""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import acp.schema
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

CALL_SECONDS = 600.0
# What the protocol's own client answers when the connection is closed, or an HTTP server says 404.
_CONNECTION_CLOSED = -32000
_SESSION_TERMINATED = (-32600, "Session terminated")
_LONGEST_NAME = 64
_MOST_PAGES = 100  # of one server's list of tools
_MOST_PICTURES = 8  # of one result
_MOST_PICTURE_CHARACTERS = 8 * 1024 * 1024  # base64, of one result


class McpTool(Tool):
    """One tool of an MCP server."""

    kind: acp.schema.ToolKind = "other"

    def __init__(
        self, server: str, client: "mcp.Client", tool: "mcp.types.Tool", gone: asyncio.Event
    ) -> None:
        parameters = {"type": "object", "properties": {}, **tool.input_schema}
        name = tool_name(server, tool.name)
        self.spec = ToolSpec(name, tool.description or tool.name, parameters)
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
            async with timeout(CALL_SECONDS):
                result = await self._client.call_tool(self._name, arguments)
        except TimeoutError as error:
            raise ToolError(f"{self._title} did not answer in {CALL_SECONDS:g} s") from error
        except mcp.MCPError as error:
            if not has_ended(error):
                raise ToolError(f"{self._title} failed: {error}") from error
            self._gone.set()
            reason = f"the MCP server {self._server} has ended; its tools are gone if it stays away"
            raise ToolError(reason) from error
        except (RuntimeError, OSError, ValueError) as error:
            raise ToolError(f"{self._title} failed: {error}") from error
        shown, pictures = _read(result.content)
        text = cut_middle(clean(shown), context.output_bytes)
        return ToolOutcome(text, bool(result.is_error), pictures=pictures)


def has_ended(error: "mcp.MCPError") -> bool:
    """Says whether nothing more can come over a server's connection."""
    is_session = (error.code, error.message) == _SESSION_TERMINATED
    return error.code == _CONNECTION_CLOSED or is_session


async def listed(client: "mcp.Client") -> list["mcp.types.Tool"]:
    """Returns all tools of a server, page by page; of two with one name the first."""
    tools: dict[str, mcp.types.Tool] = {}
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            tools.setdefault(tool.name, tool)
        cursor = page.next_cursor
        if cursor is None:
            break
    return list(tools.values())


def tool_name(server: str, tool: str) -> str:
    """Returns the name by which a model calls a server's tool.

    Its signs are those that every endpoint takes. Where that, or its length, would make two
    tools one, a hash of both names tells them apart; an endpoint refuses a name that is twice.
    """
    plain = f"mcp__{server}__{tool}"
    name = re.sub(r"[^A-Za-z0-9_-]", "_", plain)
    if name == plain and len(name) <= _LONGEST_NAME and "__" not in f"{server}_":
        return name
    mark = hashlib.sha256(repr((server, tool)).encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - 9]}_{mark}"


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
