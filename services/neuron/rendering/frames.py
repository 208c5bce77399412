"""What the daemon and a process that renders say to each other: length-prefixed msgpack.

The daemon asks, the process answers; one question at a time.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from services.neuron.chat.template import Rendered
from services.neuron.engine_api.task import Constraint, Value


class TemplateSource(Value, frozen=True):
    """What makes a `ChatTemplate`; its attributes are the arguments of that one."""

    source: str
    control_tokens: dict[str, int]
    variables: dict[str, str]
    shows_tools: bool = True


class Ping(Value, frozen=True, tag="ping"):
    """Asks whether the process has started. Answered by Done."""


class CheckConstraint(Value, frozen=True, tag="check"):
    """Compile a constraint. Answered by Done, or by Refused where it has to hold and cannot.

    Else what is asked is only whether it ends: the worker's own vocabulary has the last word.

    Attributes:
        has_to_hold: it names no token of the vocabulary, so that what holds here holds there.
    """

    constraint: Constraint
    vocabulary_size: int
    has_to_hold: bool = False


class Prepare(Value, frozen=True, tag="prepare"):
    """Compile a model's templates. Answered by Done or Refused."""

    templates: tuple[TemplateSource, ...]


class Render(Value, frozen=True, tag="render"):
    """Render a chat. Answered by RenderedChat or Refused.

    Attributes:
        template: which of those in Prepare.
        chat: cortex.v1.Chat, its pictures without their data.
        variables: more for the template.
    """

    template: int
    chat: bytes
    variables: dict[str, Any] = {}


class Done(Value, frozen=True, tag="done"):
    """Answer to Ping, Check and Prepare: finished, without a result."""


class RenderedChat(Value, frozen=True, tag="rendered"):
    """Answer to Render: the prompt."""

    rendered: Rendered


class RenderingFailed(Value, frozen=True, tag="refused"):
    """The work failed: a FleetError's reason by name, and its message."""

    reason: str
    message: str
    field: str | None = None


class Overrun(Value, frozen=True, tag="overrun"):
    """Answer to any question that took more memory, or wrote more, than is allowed."""


class Broken(Value, frozen=True, tag="broken"):
    """Answer to a question during which an unforeseen exception came: its types and frames."""

    trace: str


Question = Ping | Prepare | Render | CheckConstraint
Answer = Done | RenderedChat | RenderingFailed | Overrun | Broken

QUESTIONS: Final = msgspec.msgpack.Decoder(Question)
ANSWERS: Final = msgspec.msgpack.Decoder(Answer)
