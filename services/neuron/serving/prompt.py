"""From a request to the prompt that an engine continues."""

from __future__ import annotations

import dataclasses
import secrets
import string

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.neuron.chat.messages import image_data
from services.neuron.chat.stream import ChatParser, PlainParser
from services.neuron.chat.template import Rendered, raw_prompt
from services.neuron.engine_api.task import Constraint, Prompt
from services.neuron.instances.instances import Instance
from services.neuron.serving import convert

# A prompt this long takes milliseconds to render, and the other streams should not wait for it.
_LARGE_BYTES = 64 << 10


_ID_LETTERS = string.ascii_letters + string.digits


@dataclasses.dataclass(frozen=True, slots=True)
class Composed:
    """What a request comes to, before it runs.

    Attributes:
        prompt: what to continue.
        parser: reads the answer; made for this one.
        constraint: the shape that the answer must take.
        images: for the prompt's image markers.
    """

    prompt: Prompt
    parser: ChatParser
    constraint: Constraint | None = None
    images: tuple[bytes, ...] = ()


def is_large(request: generation.GenerateRequest) -> bool:
    """Whether a request's prompt had better be built beside the event loop."""
    return request.ByteSize() > _LARGE_BYTES


def compose(instance: Instance, request: generation.GenerateRequest) -> Composed:
    """The prompt of a request and the parser of its answer. Takes CPU time and nothing else.

    Raises:
        FleetError: BAD_REQUEST, TEMPLATE_FAILED, WRONG_MODALITY.
    """
    info = instance.info
    assert info is not None, "a READY instance has said what it is"
    if info.embedding_size:
        raise FleetError(
            Reason.WRONG_MODALITY, f"{instance.model} makes vectors, not text.", field="model"
        )
    constraint = convert.constraint(request.constraint)
    match request.WhichOneof("prompt"):
        case "chat":
            rendered = render(instance, request.chat, request.reasoning)
            answer = instance.style.answer(
                request.chat, tail=rendered.tail, constraint=constraint, new_id=_new_call_id
            )
            images = image_data(request.chat)
            return Composed(rendered.prompt, answer.parser, answer.constraint, images)
        case "text":
            return Composed(
                raw_prompt(request.text, instance.control_tokens), PlainParser(), constraint
            )
        case "token_ids":
            ids = tuple(request.token_ids.ids)
            if not ids or max(ids) >= info.vocabulary_size:
                raise FleetError(
                    Reason.BAD_REQUEST,
                    f"The prompt needs token ids below {info.vocabulary_size}, at least one.",
                    field="token_ids",
                )
            return Composed(Prompt(token_ids=ids), PlainParser(), constraint)
        case _:
            raise FleetError(Reason.BAD_REQUEST, "There is no prompt.", field="prompt")


def render(
    instance: Instance, chat: conversation.Chat, reasoning: generation.Reasoning
) -> Rendered:
    """A chat as the instance's template writes it.

    Raises:
        FleetError: TEMPLATE_FAILED, WRONG_MODALITY, BAD_REQUEST.
    """
    if instance.template is None:
        raise instance.template_error or FleetError(
            Reason.TEMPLATE_FAILED, f"{instance.model} has no chat template; it completes text."
        )
    info = instance.info
    if image_data(chat) and not (info and info.supports_images):
        raise FleetError(
            Reason.WRONG_MODALITY, f"{instance.model} does not see images.", field="messages"
        )
    has_tools = chat.tools or any(
        part.HasField("tool_call") or part.HasField("tool_result")
        for turn in chat.messages
        for part in turn.parts
    )
    template = (instance.tool_template if has_tools else None) or instance.template
    return template.render(chat, _reasoning_variables(reasoning))


def _new_call_id() -> str:
    """Nine letters and digits: what every client takes, and Mistral's templates insist on."""
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(9))


def _reasoning_variables(reasoning: generation.Reasoning) -> dict[str, object]:
    """What templates are told of reasoning; the names are those that models agree on most."""
    variables: dict[str, object] = {}
    if reasoning.HasField("enabled"):
        variables["enable_thinking"] = reasoning.enabled
        variables["thinking"] = reasoning.enabled
    if reasoning.effort:
        name = generation.ReasoningEffort.Name(reasoning.effort)
        variables["reasoning_effort"] = name.removeprefix("REASONING_EFFORT_").lower()
    if reasoning.HasField("budget_tokens"):
        variables["thinking_budget"] = reasoning.budget_tokens
    return variables
