"""The tools by which an operator's model looks at the fleet and orders it about, each asking."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import acp
import msgspec
from typing_extensions import override

from services.agent.core.modes import Effect
from services.agent.core.settings import FleetToolSettings
from services.agent.core.text import clean, cut_middle, one_line
from services.agent.core.workspace import Workspace
from services.agent.tools.fleet import wording
from services.agent.tools.tool import (
    BuiltinTool,
    Preview,
    Tool,
    ToolContext,
    ToolError,
    ToolOutcome,
)
from services.backplane.timeouts import timeout

if TYPE_CHECKING:
    from services.agent.tools.fleet.gateway import FleetGateway

_Model = Annotated[str, msgspec.Meta(description="The model's name.", min_length=1)]


class FleetStatusArguments(msgspec.Struct):
    """Arguments of one call, as the model writes them."""


class ExplainArguments(msgspec.Struct):
    """Arguments of one call, as the model writes them."""

    model: _Model


class LoadArguments(msgspec.Struct):
    """Arguments of one call, as the model writes them."""

    model: _Model
    neuron: Annotated[str, msgspec.Meta(description="Where; by placement if left out.")] = ""


class DrainArguments(msgspec.Struct):
    """Arguments of one call, as the model writes them."""

    neuron: Annotated[str, msgspec.Meta(description="The neuron's name.", min_length=1)]
    drain_seconds: Annotated[
        float | None, msgspec.Meta(description="How long requests may go on.")
    ] = None


class FleetStatus(BuiltinTool[FleetStatusArguments]):
    """Tells which neurons there are, what they hold, and what is waited for."""

    name = "fleet_status"
    description = "Tells the fleet's neurons, their memory and models, and what waits for a place."
    effect = Effect.FOREIGN_READ

    def __init__(self, settings: FleetToolSettings) -> None:
        super().__init__(FleetStatusArguments, kind="other")
        self._settings = settings

    @override
    def describe(self, arguments: FleetStatusArguments, workspace: Workspace) -> Preview:
        return Preview(one_line(f"Look at the fleet of {self._settings.url}", 100))

    @override
    async def execute(self, arguments: FleetStatusArguments, context: ToolContext) -> ToolOutcome:
        context.permit(None)
        snapshot = await _asked(self._settings, lambda gateway: gateway.snapshot())
        return _told(wording.status(snapshot), context)


class Explain(BuiltinTool[ExplainArguments]):
    """Tells where a model would be loaded, and why nowhere else."""

    name = "explain"
    description = "Tells where in the fleet a model would be loaded now, and why."
    effect = Effect.FOREIGN_READ

    def __init__(self, settings: FleetToolSettings) -> None:
        super().__init__(ExplainArguments, kind="other")
        self._settings = settings

    @override
    def describe(self, arguments: ExplainArguments, workspace: Workspace) -> Preview:
        return Preview(one_line(f"Explain where {arguments.model} would be loaded", 100))

    @override
    async def execute(self, arguments: ExplainArguments, context: ToolContext) -> ToolOutcome:
        context.permit(None)
        told = await _asked(self._settings, lambda gateway: gateway.explanation(arguments.model))
        return _told(wording.explanation(told), context)


class Load(BuiltinTool[LoadArguments]):
    """Loads a model, and gives it up when the call is cancelled."""

    name = "load"
    description = "Loads a model in the fleet, where others may be unloaded for it."
    effect = Effect.OPERATE

    def __init__(self, settings: FleetToolSettings) -> None:
        super().__init__(LoadArguments, kind="other")
        self._settings = settings

    @override
    def describe(self, arguments: LoadArguments, workspace: Workspace) -> Preview:
        where = f" on {arguments.neuron}" if arguments.neuron else ""
        return Preview(one_line(f"Load {arguments.model}{where}, in the whole fleet", 100))

    @override
    async def execute(self, arguments: LoadArguments, context: ToolContext) -> ToolOutcome:
        body = {"model": arguments.model, "neuron": arguments.neuron, "attached": True}
        return await _ordered(self._settings, self.name, body, context)


class Drain(BuiltinTool[DrainArguments]):
    """Takes a neuron out of service: no new loads, and all that it holds is unloaded."""

    name = "drain"
    description = (
        "Takes a neuron out of service: it gets no new models, and those it has are unloaded when "
        "their requests have ended. Only a person puts it back (`cortex uncordon`)."
    )
    effect = Effect.OPERATE

    def __init__(self, settings: FleetToolSettings) -> None:
        super().__init__(DrainArguments, kind="other")
        self._settings = settings

    @override
    def describe(self, arguments: DrainArguments, workspace: Workspace) -> Preview:
        return Preview(one_line(f"Drain {arguments.neuron}: unload all that it holds", 100))

    @override
    async def execute(self, arguments: DrainArguments, context: ToolContext) -> ToolOutcome:
        body: dict[str, Any] = {"neuron": arguments.neuron}
        if arguments.drain_seconds is not None:
            body["drain_seconds"] = arguments.drain_seconds
        return await _ordered(self._settings, self.name, body, context)


def fleet_tools(settings: FleetToolSettings) -> tuple[Tool, ...]:
    """Returns the tools where they are switched on, by the address of a gateway."""
    if not settings.url:
        return ()
    return (FleetStatus(settings), Explain(settings), Load(settings), Drain(settings))


async def _asked(
    settings: FleetToolSettings, ask: Callable[[FleetGateway], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    """What the gateway answers; its refusals are the tool's."""
    from services.agent.tools.fleet.gateway import FleetGateway, FleetGatewayError

    try:
        return await ask(FleetGateway(settings))
    except FleetGatewayError as error:
        raise ToolError(str(error)) from error


async def _ordered(
    settings: FleetToolSettings, operation: str, body: dict[str, Any], context: ToolContext
) -> ToolOutcome:
    """Gives an order and shows its steps on the card; returns them."""
    from services.agent.tools.fleet.gateway import FleetGateway, FleetGatewayError

    seen: list[str] = []
    context.permit(None)
    steps: AsyncGenerator[dict[str, Any], None] = FleetGateway(settings).order(operation, **body)
    try:
        async with timeout(context.bash_seconds), aclosing(steps):
            async for told in steps:
                line = wording.step(told)
                if line not in seen[-1:]:
                    seen.append(line)
                    shown = acp.tool_content(acp.text_block("\n".join(seen)))
                    await context.progress((shown,))
    except TimeoutError as error:
        reason = f"not done within {context.bash_seconds:g} s: {'; '.join(seen[-1:])}"
        raise ToolError(reason) from error
    except FleetGatewayError as error:
        raise ToolError("\n".join([*seen, str(error)])) from error
    return _told("\n".join([*seen[-3:], "done"]), context)


def _told(text: str, context: ToolContext) -> ToolOutcome:
    return ToolOutcome(cut_middle(clean(text), context.output_bytes))
