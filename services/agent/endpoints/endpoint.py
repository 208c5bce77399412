"""What every dialect gives the turn loop: an `Endpoint` that streams canonical events."""

import enum
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from services.agent.core.history import Turn
from services.agent.core.model_options import ModelOptions

# Words of llama-server, vLLM, Ollama, OpenRouter, LiteLLM, Groq, OpenAI and their kin. A tool that
# is wrong, or a result that fits no call, is refused in others: asking in the text mends neither.
_NO_TOOLS: Final = re.compile(
    r"tools?(?:_choice)? param requires --jinja"
    r"|tool choice requires --enable-auto-tool-choice"
    r"|(?:do(?:es)? not|doesn't|no endpoints found that) support"
    r" (?:the )?(?:parameters?:? )?\[?[`'\"]?(?:tools?|tool[ _-]?(?:use|call(?:s|ing)?)|function"
    r"[ -]?call(?:s|ing)?)\b"
    r"|[`'\"]?(?:tools|tool (?:use|calls?|calling)|function calling)[`'\"]? (?:is|are) not"
    r" (?:supported|available|enabled|allowed)"
    r"|(?:unsupported|unknown|unrecognized)(?: request)? (?:parameter|argument|field)s?"
    r"(?: supplied)?:? [`'\"]?tools(?![\w.\[])",
    re.IGNORECASE,
)


class FinishReason(enum.Enum):
    """Why the model stopped."""

    END = "end"
    MAX_TOKENS = "max_tokens"
    REFUSAL = "refusal"


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one answer; `input_tokens` includes the cached ones."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    thought_tokens: int = 0

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        return TokenUsage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.thought_tokens + other.thought_tokens,
        )


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the visible answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ThoughtDelta:
    """A piece of the model's reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class ThoughtSealed:
    """Ends the reasoning so far; `seal` goes back to the same dialect with it."""

    seal: str
    dialect: str


@dataclass(frozen=True, slots=True)
class CallStarted:
    """The model began a native tool call; `index` tells the calls of one answer apart."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """A fragment of that call's arguments, JSON text."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every stream that did not fail."""

    stop: FinishReason
    usage: TokenUsage | None = None


StreamEvent = TextDelta | ThoughtDelta | ThoughtSealed | CallStarted | CallDelta | Finished


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model sees it; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request to a model; an empty `tools` sends none."""

    model: str
    system: str
    turns: Sequence[Turn]
    tools: Sequence[ToolSpec] = field(default_factory=tuple[ToolSpec, ...])
    max_tokens: int | None = None
    options: ModelOptions = field(default_factory=ModelOptions)


@dataclass(frozen=True, slots=True)
class EndpointModel:
    """A model that an endpoint lists.

    Attributes:
        context_window: tokens; None where the endpoint does not say.
        can_chat: False where it says that the model is for something else.
        can_see: whether it takes pictures; None where the endpoint does not say.
        can_call: whether it takes tools; None where the endpoint does not say.
        aliases: other names of it.
    """

    id: str
    context_window: int | None = None
    can_chat: bool = True
    can_see: bool | None = None
    can_call: bool | None = None
    aliases: tuple[str, ...] = ()


class EndpointError(Exception):
    """An endpoint refused, failed or broke off; the message is fit for a person.

    Attributes:
        status: the HTTP status, None when there was no answer or the stream failed.
        code: the dialect's error code, lower case, empty when it gave none.
        is_cut: the answer had begun and ended without its end.
    """

    def __init__(
        self, message: str, *, status: int | None = None, code: str = "", is_cut: bool = False
    ) -> None:
        super().__init__(message)
        self.is_cut = is_cut
        self.status = status
        self.code = code

    @property
    def is_context_exceeded(self) -> bool:
        """Whether the conversation was too long for the model."""
        text = f"{self.code} {self}".lower()
        marks = (
            "context_length",
            "context length",
            "prompt is too long",
            "context size",
            "too_long",
        )
        return self.status in {400, 413, 422, None} and any(mark in text for mark in marks)

    @property
    def is_tools_refused(self) -> bool:
        """Whether the endpoint says, in words that are known, that it takes no tools at all."""
        is_refusal = self.status in {400, 404, 422, 500, 501}
        return is_refusal and _NO_TOOLS.search(str(self)) is not None


class Endpoint(Protocol):
    """A server that models are asked at. Cancelling a wait closes the request behind it."""

    def stream(self, ask: ModelRequest) -> AsyncGenerator[StreamEvent, None]:
        """Streams one answer, `Finished` last; consume it under `contextlib.aclosing`.

        Raises:
            EndpointError: no answer, a refusal, or a stream that broke off.
        """
        ...

    async def models(self) -> list[EndpointModel]:
        """Lists the endpoint's models; raises EndpointError."""
        ...

    async def close(self) -> None:
        """Closes its connections."""
        ...
