"""Renders chats by a model's own templates, in processes that can be ended.

A template is foreign code: it may run for ever or fill the memory. So every model with one has a
process that holds it compiled, kept ready; a second one, started at the first need, takes what is
large, so that short chats do not wait behind it. A render that exceeds its limits fails its own
request, and its process is replaced; what waits for the process goes to the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.process.faults import Faults
from services.neuron.chat.messages import image_data
from services.neuron.chat.template import Rendered
from services.neuron.rendering.frames import (
    Prepare,
    Render,
    RenderedChat,
    TemplateSource,
    pack,
)
from services.neuron.rendering.lane import PING, Lane
from services.neuron.settings import TemplateLimits

_LARGE_BYTES: Final = 64 << 10


class Renderer:
    """The templates of one model. Made by `Renderers.start`."""

    def __init__(
        self,
        templates: Sequence[TemplateSource],
        *,
        limits: TemplateLimits,
        faults: Faults,
        model: str,
    ) -> None:
        self.templates = tuple(templates)
        self._faults = faults
        prepare = pack(Prepare(self.templates))
        self._short = Lane(prepare, limits, faults, model)
        self._large = Lane(prepare, limits, faults, model)

    async def open(self) -> None:
        """Has the templates compiled, and keeps a process ready.

        Raises:
            FleetError: TEMPLATE_FAILED, they cannot be; LOAD_FAILED, there is no process.
        """
        await self._short.ask(PING)

    async def render(
        self, chat: conversation.Chat, variables: Mapping[str, Any], *, template: int = 0
    ) -> Rendered:
        """The prompt of a chat; see `ChatTemplate.render`.

        Args:
            chat: the conversation.
            variables: more for the template.
            template: which, by its place in `templates`.

        Raises:
            FleetError: as there; TEMPLATE_FAILED also where it exceeds its limits; QUEUE_FULL,
                QUEUE_TIMEOUT; INSTANCE_GONE, the model was unloaded.
        """
        chat_bytes = without_pictures(chat).SerializeToString()
        lane = self._large if len(chat_bytes) > _LARGE_BYTES else self._short
        answer = await lane.ask(pack(Render(template, chat_bytes, dict(variables))))
        assert isinstance(answer, RenderedChat)
        return answer.rendered

    @property
    def pids(self) -> list[int]:
        """Ids of the processes that run now."""
        return [pid for lane in (self._short, self._large) if (pid := lane.pid) is not None]

    def close(self) -> None:
        """Ends the processes; what waits fails."""
        self._short.close()
        self._large.close()

    @property
    def is_over(self) -> bool:
        """True if nothing is left after `close`."""
        return self._short.is_over and self._large.is_over

    async def ended(self) -> None:
        """Returns once nothing is left after `close`."""
        await self._short.ended()
        await self._large.ended()


class Renderers:
    """Those of all models of a neuron."""

    def __init__(self, limits: TemplateLimits, faults: Faults) -> None:
        self._limits = limits
        self._faults = faults
        self._started: set[Renderer] = set()

    async def start(self, templates: Sequence[TemplateSource], model: str) -> Renderer:
        """A model's renderer, ready. Whoever gets it closes it.

        Raises:
            FleetError: as `Renderer.open`.
        """
        made = Renderer(templates, limits=self._limits, faults=self._faults, model=model)
        self._started = {each for each in self._started if not each.is_over} | {made}
        try:
            await made.open()
        except BaseException:
            made.close()
            raise
        return made

    async def stop(self) -> None:
        """Ends all of them."""
        for each in self._started:
            each.close()
        await asyncio.gather(*(each.ended() for each in self._started))


def without_pictures(chat: conversation.Chat) -> conversation.Chat:
    """The chat with the data of its pictures left out; templates see only where they stand."""
    if not image_data(chat):
        return chat
    kept = conversation.Chat()
    kept.CopyFrom(chat)
    for message in kept.messages:
        for part in message.parts:
            for each in (part, *part.tool_result.parts):
                if each.HasField("image"):
                    each.image.data = b""
    return kept
