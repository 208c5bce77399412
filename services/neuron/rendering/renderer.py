"""Runs what others wrote in processes that can be ended: a model's templates, clients' constraints.

A template is foreign code: it may run for ever or fill the memory. So every model with one has a
process that holds it compiled, kept ready; a second one, started at the first need, takes what is
large, so that short chats do not wait behind it. A render that exceeds its limits fails its own
request, and its process is replaced; what waits for the process goes to the next one. A schema, a
pattern or a grammar is tried in a third process, started at the first need too, before an engine
compiles it: some take llguidance minutes, which nothing in a worker can cut short.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict, TypeVar

import msgspec

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.neuron.chat.messages import has_images
from services.neuron.chat.template import Rendered
from services.neuron.engine_api.frames import pack
from services.neuron.engine_api.task import Constraint, ConstraintKind
from services.neuron.rendering.aside import LARGE_BYTES, aside
from services.neuron.rendering.frames import (
    CheckConstraint,
    Prepare,
    Render,
    RenderedChat,
    TemplateSource,
)
from services.neuron.rendering.lane import PING, Blame, Lane
from services.neuron.settings import TemplateLimits

T = TypeVar("T")
_MOST_CHECKED: Final = 256
_TEMPLATE: Final = Blame("The model's chat template", Reason.TEMPLATE_FAILED)
_CONSTRAINT: Final = Blame("The schema, pattern or grammar", Reason.BAD_CONSTRAINT, "constraint")


class _Rest(TypedDict):
    faults: Faults
    model: str


class _Known(collections.OrderedDict[bytes, T]):
    """What is known of the 256 constraints that came last, by their digests."""

    def know(self, digest: bytes, answer: T) -> None:
        self[digest] = answer
        self.move_to_end(digest)
        if len(self) > _MOST_CHECKED:
            self.popitem(last=False)


class Renderer:
    """Renders one model's chat templates and tries clients' constraints. Made by `Renderers.start`.

    Both happen in processes of its own, which are killed where they exceed their limits.
    """

    def __init__(
        self,
        templates: Sequence[TemplateSource],
        *,
        limits: TemplateLimits,
        constraint_seconds: float,
        faults: Faults,
        model: str,
    ) -> None:
        self.templates = tuple(templates)
        self._faults = faults
        prepare = pack(Prepare(self.templates))
        rest: _Rest = {"faults": faults, "model": model}
        self._short = Lane(prepare, limits=limits, blame=_TEMPLATE, **rest)
        self._large = Lane(prepare, limits=limits, blame=_TEMPLATE, **rest)
        shorter = msgspec.structs.replace(limits, seconds=constraint_seconds)
        self._constraints = Lane(PING, limits=shorter, blame=_CONSTRAINT, **rest)
        self._lanes = (self._short, self._large, self._constraints)
        self._checked: _Known[None] = _Known()
        self._holding: _Known[bool] = _Known()

    async def open(self) -> None:
        """Compiles the templates, if there are any, in a process that is kept ready.

        Raises:
            FleetError: TEMPLATE_FAILED, they cannot be; LOAD_FAILED, there is no process.
        """
        if self.templates:
            await self._short.ask(PING)

    async def render(
        self,
        chat: conversation.Chat,
        variables: Mapping[str, Any],
        *,
        template: int = 0,
        size: int = 0,
    ) -> Rendered:
        """The prompt of a chat; see `ChatTemplate.render`.

        Args:
            chat: the conversation.
            variables: more for the template.
            template: which, by its place in `templates`.
            size: of the chat in bytes, pictures and all.

        Raises:
            FleetError: as there; TEMPLATE_FAILED also where it exceeds its limits; QUEUE_FULL,
                QUEUE_TIMEOUT; INSTANCE_GONE, the model was unloaded.
        """
        chat_bytes = await aside(size, _shown, chat)
        lane = self._large if len(chat_bytes) > LARGE_BYTES else self._short
        answer = await lane.ask(pack(Render(template, chat_bytes, dict(variables))))
        assert isinstance(answer, RenderedChat)
        return answer.rendered

    async def check(self, constraint: Constraint, vocabulary_size: int) -> None:
        """Sees that a constraint can be compiled in bounded time; the worker says if it is good.

        The last 256 are known, so that the tools of an agent are tried once.

        Raises:
            FleetError: BAD_CONSTRAINT, it exceeds its limits; QUEUE_FULL, QUEUE_TIMEOUT;
                INSTANCE_GONE, the model was unloaded.
        """
        digest = constraint.digest
        if digest not in self._checked:
            await self._constraints.ask(pack(CheckConstraint(constraint, vocabulary_size)))
        self._checked.know(digest, None)

    async def holds(self, schema: str, vocabulary_size: int) -> bool:
        """Whether a JSON Schema can be enforced within the limits, and something satisfies it.

        The last 256 answers are known.

        Raises:
            FleetError: QUEUE_FULL, QUEUE_TIMEOUT; INSTANCE_GONE, the model was unloaded.
        """
        constraint = Constraint(ConstraintKind.JSON_SCHEMA, schema)
        digest = constraint.digest
        if digest in self._holding:
            holds = self._holding[digest]
        else:
            asked = CheckConstraint(constraint, vocabulary_size, has_to_hold=True)
            try:
                await self._constraints.ask(pack(asked))
                holds = True
            except FleetError as error:
                if error.reason is not Reason.BAD_CONSTRAINT:
                    raise
                holds = False
        self._holding.know(digest, holds)
        return holds

    @property
    def pids(self) -> list[int]:
        """Ids of its processes."""
        return [pid for lane in self._lanes if (pid := lane.pid) is not None]

    def close(self) -> None:
        """Kills the processes; whoever waits for a prompt gets INSTANCE_GONE."""
        for lane in self._lanes:
            lane.close()

    @property
    def is_over(self) -> bool:
        """True once it is closed and its processes have ended."""
        return all(lane.is_over for lane in self._lanes)

    async def ended(self) -> None:
        """Waits until the processes of a closed renderer have ended."""
        for lane in self._lanes:
            await lane.ended()


class Renderers:
    """The renderers of all models of a neuron."""

    def __init__(
        self, limits: TemplateLimits, *, constraint_seconds: float, faults: Faults
    ) -> None:
        self._limits = limits
        self._constraint_seconds = constraint_seconds
        self._faults = faults
        self._started: set[Renderer] = set()

    async def start(self, templates: Sequence[TemplateSource], model: str) -> Renderer:
        """A renderer for a model, its templates compiled. The caller closes it.

        Raises:
            FleetError: as `Renderer.open`.
        """
        made = Renderer(
            templates,
            limits=self._limits,
            constraint_seconds=self._constraint_seconds,
            faults=self._faults,
            model=model,
        )
        self._started = {each for each in self._started if not each.is_over} | {made}
        try:
            await made.open()
        except BaseException:
            made.close()
            raise
        return made

    async def stop(self) -> None:
        """Closes all renderers and waits until their processes have ended."""
        for each in self._started:
            each.close()
        await asyncio.gather(*(each.ended() for each in self._started))


def _shown(chat: conversation.Chat) -> bytes:
    """The chat without the data of its pictures; templates see only where they stand."""
    if not has_images(chat):
        return chat.SerializeToString()
    kept = conversation.Chat()
    kept.CopyFrom(chat)
    for message in kept.messages:
        for part in message.parts:
            for each in (part, *part.tool_result.parts):
                if each.HasField("image"):
                    each.image.data = b""
    return kept.SerializeToString()
