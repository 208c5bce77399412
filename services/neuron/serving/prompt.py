"""From a request to the prompt that an engine continues."""

from __future__ import annotations

import dataclasses
import functools
import secrets
import string
from collections.abc import Mapping
from typing import Final

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.neuron.chat.messages import has_images, image_data
from services.neuron.chat.stream import ChatParser, PlainParser
from services.neuron.chat.template import Rendered, raw_prompt
from services.neuron.chat.tool_calls.forced import UNCHANGED, ForcedCall, is_forced, lenient
from services.neuron.engine_api.model import ModelInfo
from services.neuron.engine_api.task import Constraint, Prompt, PromptMarks
from services.neuron.instances.instances import Instance
from services.neuron.rendering.aside import LARGE_BYTES, aside
from services.neuron.serving import convert
from services.neuron.serving.least_tokens import refuse_endless_chat, refuse_endless_text
from services.neuron.serving.loosening import loosen

_PROBE_CHARACTERS: Final = 64
_DIGEST_BYTES: Final = 16
_ID_LETTERS = string.ascii_letters + string.digits


@dataclasses.dataclass(frozen=True, slots=True)
class Composed:
    """A request made ready for its engine: prompt, parser of the answer, constraint.

    Attributes:
        prompt: what to continue.
        parser: reads the answer; made for this one.
        constraint: the shape that the answer must take.
        images: for the prompt's image markers.
        call: that the answer must be, or may be in place of its shape.
    """

    prompt: Prompt
    parser: ChatParser
    constraint: Constraint | None = None
    images: tuple[bytes, ...] = ()
    call: ForcedCall | None = None


async def compose(instance: Instance, request: generation.GenerateRequest) -> Composed:
    """The prompt of a request and the parser of its answer.

    Raises:
        FleetError: BAD_REQUEST, BAD_CONSTRAINT, TEMPLATE_FAILED, WRONG_MODALITY; what
            `Renderer.render` raises.
    """
    info = instance.info
    assert info is not None, "a READY instance has said what it is"
    if info.embedding_size:
        raise FleetError(
            Reason.WRONG_MODALITY, f"{instance.model} makes vectors, not text.", field="model"
        )
    rendered, size = None, request.ByteSize()
    if request.WhichOneof("prompt") == "chat":
        if size > LARGE_BYTES:
            most = info.max_context_tokens
            await aside(size, refuse_endless_chat, info, request.chat, most)
        rendered = await render(instance, request.chat, request.reasoning, size=size)
    composed = await aside(size, _composed, instance, info, request, rendered)
    renderer = instance.renderer
    if renderer is not None and composed.call is not None:
        holds = functools.partial(renderer.holds, vocabulary_size=info.vocabulary_size)
        chat = request.chat if is_forced(request.chat) else lenient(request.chat)
        if loosened := await loosen(chat, composed.call, holds):
            composed = await aside(size, _composed, instance, info, request, rendered, loosened)
    if renderer is not None and composed.constraint is not None:
        await renderer.check(composed.constraint, info.vocabulary_size)
    return composed


def _composed(
    instance: Instance,
    info: ModelInfo,
    request: generation.GenerateRequest,
    rendered: Rendered | None,
    loosened: Mapping[str, frozenset[str]] = UNCHANGED,
) -> Composed:
    constraint = convert.constraint(request.constraint)
    if rendered is not None:
        answer = instance.style.answer(
            request.chat,
            tail=rendered.tail,
            constraint=constraint,
            new_id=_new_call_id,
            loosened=loosened,
        )
        images = image_data(request.chat)
        return Composed(rendered.prompt, answer.parser, answer.constraint, images, answer.call)
    match request.WhichOneof("prompt"):
        case "text":
            refuse_endless_text(info, request.text, info.max_context_tokens)
            prompt = raw_prompt(request.text, instance.control_tokens)
            return Composed(prompt, PlainParser(), constraint)
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


async def render(
    instance: Instance,
    chat: conversation.Chat,
    reasoning: generation.Reasoning,
    *,
    size: int,
) -> Rendered:
    """A chat as the instance's template writes it; `size` is of the request in bytes.

    Raises:
        FleetError: TEMPLATE_FAILED, WRONG_MODALITY, BAD_REQUEST; what `Renderer.render` raises.
    """
    renderer = instance.renderer
    if renderer is None or not renderer.templates:
        if instance.template_error is not None:
            raise instance.template_error.anew()
        raise FleetError(
            Reason.TEMPLATE_FAILED, f"{instance.model} has no chat template; it completes text."
        )
    info = instance.info
    images, tools = await aside(size, _kinds, chat)
    if images and not (info and info.supports_images):
        raise FleetError(
            Reason.WRONG_MODALITY, f"{instance.model} does not see images.", field="messages"
        )
    template = len(renderer.templates) - 1 if tools else 0
    return await renderer.render(
        chat, _reasoning_variables(reasoning), template=template, size=size
    )


def _kinds(chat: conversation.Chat) -> tuple[bool, bool]:
    """Whether a chat has pictures, and whether it has tools, their calls or results."""
    tools = chat.tools or any(
        part.HasField("tool_call") or part.HasField("tool_result")
        for turn in chat.messages
        for part in turn.parts
    )
    return has_images(chat), bool(tools)


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


def marks_of(request: generation.GenerateRequest, prompt: Prompt) -> PromptMarks | None:
    """The names of a prompt's beginnings, with what the engine finds their ends by.

    The head ends before the turn of the first text that a user wrote: before the last control token
    that stands before it. Where a template has written that text otherwise, it is not known where
    the head ends. Where the same words stand earlier, it ends there, and is the shorter.

    Args:
        request: with `marks`; None is returned where it has none.
        prompt: what the template has made of its chat.
    """
    if not request.HasField("marks"):
        return None
    head, whole = request.marks.head, request.marks.whole
    if len(whole) != _DIGEST_BYTES:
        return None
    controls = _controls_before(_first_words(request.chat), prompt) if head else 0
    return PromptMarks(head if len(head) == _DIGEST_BYTES else b"", controls, whole)


def _first_words(chat: conversation.Chat) -> str:
    """The beginning of the first text of a user."""
    for message in chat.messages:
        if message.role == conversation.ROLE_USER:
            for part in message.parts:
                if words := part.text.strip()[:_PROBE_CHARACTERS]:
                    return words
            return ""
    return ""


def _controls_before(words: str, prompt: Prompt) -> int:
    """How many control tokens of a prompt come before some words; 0 where they are not in it."""
    if not words:
        return 0
    count = 0
    for segment in prompt.segments:
        if segment.control:
            count += 1
        elif words in segment.text:
            return count
    return 0
