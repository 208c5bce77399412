"""What a tool is, and what it is given when it runs."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import acp.schema
import msgspec
from typing_extensions import override

from services.agent.core.editor import Content, Editor
from services.agent.core.history import ImagePart
from services.agent.core.modes import Effect, Mode
from services.agent.core.workspace import Workspace
from services.agent.endpoints.endpoint import ToolSpec
from services.agent.tools.processes.background import BackgroundCommands


class ToolError(Exception):
    """A call failed or was refused; the message is what the model reads."""


@dataclass(frozen=True, slots=True)
class Preview:
    """A call before it runs.

    Attributes:
        title: for the editor's card, one line.
        target: what would be read or written, absolute but not resolved; else None.
        locations: files to follow along, with a line or None.
    """

    title: str
    target: Path | None = None
    locations: tuple[tuple[Path, int | None], ...] = ()


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """A call that ran.

    Attributes:
        content: for the card, None to show the text.
        pictures: for a model that sees, beside the text.
        locations: what was found, to follow along; instead of the preview's where there are any.
        is_going_on: what was started goes on; the card stays open until `ToolContext.finish`.
    """

    text: str
    is_error: bool = False
    content: Sequence[Content] | None = None
    is_going_on: bool = False
    pictures: tuple[ImagePart, ...] = ()
    locations: tuple[tuple[Path, int | None], ...] = ()


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a running tool may use.

    Attributes:
        permit: called right before each effect with what is read or written, or None for other
            effects; returns the resolved path, or raises ToolError because the mode at this
            very moment forbids it.
        permit_private: called with a URL whose address is not a public one; raises ToolError
            unless a rule of the project permits it.
        progress: shows content on the card while the tool runs.
        finish: closes the card of a call whose outcome goes on, when that has ended.
        background: the session's commands in the background.
        environment: of commands.
        keep: called with the resolved file and False before a write, True after it, so that the
            write can be taken back; blocks.
        mode: the session's at this very moment.
        set_mode: switches it, for the session and in the editor.
        search: has a second agent answer a question; raises ToolError.
        choose: shows the user content and options; returns the chosen one's id, None if dismissed.
    """

    workspace: Workspace
    editor: Editor
    permit: Callable[[Path | None], Path | None]
    permit_private: Callable[[str], None]
    progress: Callable[[Sequence[Content]], Awaitable[None]]
    finish: Callable[[ToolOutcome], Awaitable[None]]
    background: BackgroundCommands
    environment: Mapping[str, str]
    output_bytes: int
    bash_seconds: float
    keep: Callable[[Path, bool], None]
    mode: Callable[[], Mode]
    set_mode: Callable[[Mode], Awaitable[object]]
    search: Callable[[str], Awaitable[ToolOutcome]]
    choose: Callable[
        [Sequence[acp.schema.PermissionOption], Sequence[Content]], Awaitable[str | None]
    ]


class Tool(Protocol):
    """A tool, built in or an MCP server's.

    Attributes:
        spec: what the model sees.
        effect: what it does to the world.
        kind: what icon an editor shows.
    """

    spec: ToolSpec
    effect: Effect
    kind: acp.schema.ToolKind

    def preview(self, arguments: dict[str, Any], workspace: Workspace) -> Preview:
        """Describes a call without touching anything; raises ToolError for bad arguments."""
        ...

    async def diff(self, arguments: dict[str, Any], context: ToolContext) -> Sequence[Content]:
        """Returns what the call would change, having only read; raises ToolError."""
        ...

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolOutcome:
        """Runs the call; raises ToolError. Cancelling it leaves nothing running."""
        ...


Arguments = TypeVar("Arguments", bound=msgspec.Struct)


class BuiltinTool(Tool, ABC, Generic[Arguments]):
    """A tool whose arguments are a struct, which gives its JSON schema and its checks."""

    name: ClassVar[str]
    description: ClassVar[str]

    def __init__(self, arguments: type[Arguments], *, kind: acp.schema.ToolKind) -> None:
        self._arguments = arguments
        self.kind: acp.schema.ToolKind = kind
        self.spec = ToolSpec(self.name, self.description, _schema(arguments))

    @override
    def preview(self, arguments: dict[str, Any], workspace: Workspace) -> Preview:
        return self.describe(self._read(arguments), workspace)

    @override
    async def diff(self, arguments: dict[str, Any], context: ToolContext) -> Sequence[Content]:
        return await self.changes(self._read(arguments), context)

    @override
    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolOutcome:
        return await self.execute(self._read(arguments), context)

    @abstractmethod
    def describe(self, arguments: Arguments, workspace: Workspace) -> Preview:
        """Implements `preview` on checked arguments."""

    async def changes(self, arguments: Arguments, context: ToolContext) -> Sequence[Content]:
        """Implements `diff`; most tools change no file."""
        return ()

    @abstractmethod
    async def execute(self, arguments: Arguments, context: ToolContext) -> ToolOutcome:
        """Implements `run` on checked arguments."""

    def _read(self, arguments: dict[str, Any]) -> Arguments:
        try:
            return msgspec.convert(arguments, self._arguments, strict=False)
        except msgspec.ValidationError as error:
            raise ToolError(f"bad arguments for {self.name}: {error}") from error


def _schema(arguments: type[msgspec.Struct]) -> dict[str, Any]:
    """Returns a plain object schema: weak models stumble over `$ref`, `anyOf` and `title`."""
    _, components = msgspec.json.schema_components([arguments], ref_template="{name}")
    schema = dict(components[arguments.__name__])
    for key in ("title", "description"):
        schema.pop(key, None)
    schema["properties"] = {
        key: _plain(value, components) for key, value in schema["properties"].items()
    }
    schema.setdefault("required", [])
    return schema


def _plain(value: dict[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in value:
        value = components[value["$ref"]]
    branches = [each for each in value.get("anyOf", ()) if each.get("type") != "null"]
    if len(branches) == 1:
        value = {**value, **branches[0]}
    plain = {key: item for key, item in value.items() if key not in {"anyOf", "title"}}
    if plain.get("default", ...) is None:
        del plain["default"]
    if "items" in plain:
        plain["items"] = _plain(plain["items"], components)
    if "properties" in plain:
        plain["properties"] = {k: _plain(v, components) for k, v in plain["properties"].items()}
    return plain
