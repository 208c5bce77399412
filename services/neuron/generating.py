"""Begins generations: finds the instance, builds the prompt, settles every choice."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import string
import time

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.neuron import translate
from services.neuron.chat.messages import image_data
from services.neuron.chat.stream import ChatParser, PlainParser
from services.neuron.chat.template import Rendered, text_prompt
from services.neuron.chat.thinking_budget import ThinkingBudget
from services.neuron.engine_api.task import Constraint, Prompt, Task
from services.neuron.gauges import NeuronMetrics
from services.neuron.instances.instances import Instance, Instances
from services.neuron.outlet import Outlet
from services.neuron.running import Generation
from services.neuron.settings import NeuronSettings

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


@dataclasses.dataclass(frozen=True, slots=True)
class Patience:
    """How long a generation may stand still; see `settings`."""

    slow_reader_seconds: float
    recovery_seconds: float


class Generations:
    """Where every generation of this neuron begins."""

    def __init__(
        self, *, instances: Instances, settings: NeuronSettings, metrics: NeuronMetrics
    ) -> None:
        self._instances = instances
        self._patience = Patience(settings.slow_reader_seconds, settings.workers.recovery_seconds)
        self._metrics = metrics

    def begin(
        self,
        request: generation.GenerateRequest,
        outlet: Outlet,
        *,
        credit_tokens: int | None,
        deadline_seconds: float | None = None,
    ) -> Generation:
        """Begins one generation; its events go to the outlet.

        Args:
            request: what is asked.
            outlet: takes the events.
            credit_tokens: tokens that may be sent before more credit comes; None is no limit.
            deadline_seconds: the caller's own patience, beside the request's deadline.

        Raises:
            FleetError: why it cannot begin.
        """
        instance = self._instances.admit(request.model, request.instance_id)
        composed = compose(instance, request)
        return self._start(instance, request, composed, outlet, credit_tokens, deadline_seconds)

    async def begin_large(
        self,
        request: generation.GenerateRequest,
        outlet: Outlet,
        *,
        credit_tokens: int | None,
        deadline_seconds: float | None = None,
    ) -> Generation:
        """As `begin`, with the prompt built beside the event loop."""
        instance = self._instances.admit(request.model, request.instance_id)
        composed = await asyncio.to_thread(compose, instance, request)
        # It may have begun to drain meanwhile.
        instance = self._instances.admit(request.model, instance.instance_id)
        return self._start(instance, request, composed, outlet, credit_tokens, deadline_seconds)

    def _start(
        self,
        instance: Instance,
        request: generation.GenerateRequest,
        composed: Composed,
        outlet: Outlet,
        credit_tokens: int | None,
        deadline_seconds: float | None,
    ) -> Generation:
        seconds = _earliest(request, deadline_seconds)
        link = instance.link
        assert link is not None, "a READY instance has a worker"
        made = Generation(
            request=request,
            instance=instance,
            task=_task(instance, request, composed, link.new_task_id(), credit_tokens),
            parser=composed.parser,
            outlet=outlet,
            instances=self._instances,
            limits=self._patience,
            metrics=self._metrics,
            budget=_budget(instance, request.reasoning),
            most_calls=_most_calls(request.chat),
        )
        made.start(link, seconds)
        return made


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
    constraint = translate.constraint(request.constraint)
    match request.WhichOneof("prompt"):
        case "chat":
            rendered = render(instance, request.chat, request.reasoning)
            answer = instance.style.answer(
                request.chat, tail=rendered.tail, constraint=constraint, new_id=_new_call_id
            )
            images = image_data(request.chat)
            return Composed(rendered.prompt, answer.parser, answer.constraint, images)
        case "text":
            return Composed(text_prompt(request.text), PlainParser(), constraint)
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
    return instance.template.render(chat, _reasoning_variables(reasoning))


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


def _most_calls(chat: conversation.Chat) -> int | None:
    """Clients that cannot run calls side by side get one at a time."""
    return 1 if chat.HasField("parallel_tool_calls") and not chat.parallel_tool_calls else None


def _budget(instance: Instance, reasoning: generation.Reasoning) -> ThinkingBudget | None:
    if instance.closing is None or not reasoning.HasField("budget_tokens"):
        return None
    return ThinkingBudget(reasoning.budget_tokens, instance.closing)


def _task(
    instance: Instance,
    request: generation.GenerateRequest,
    composed: Composed,
    task_id: int,
    credit_tokens: int | None,
) -> Task:
    info = instance.info
    assert info is not None
    own = translate.sampling(instance.spec.default_sampling, info.default_sampling)
    return Task(
        task_id=task_id,
        instance_id=instance.instance_id,
        prompt=composed.prompt,
        sampling=translate.sampling(request.sampling, own),
        stop=translate.stop(request.stop),
        constraint=composed.constraint,
        top_logprobs=translate.top_logprobs(request),
        echo_prompt_logprobs=request.echo_prompt,
        resume_token_ids=tuple(request.resume_from.ids),
        principal=request.principal,
        is_batch=request.work_class == generation.WORK_CLASS_BATCH,
        credit_tokens=credit_tokens,
        images=composed.images,
    )


def _earliest(request: generation.GenerateRequest, deadline_seconds: float | None) -> float | None:
    """Seconds until the first of both deadlines.

    Raises:
        FleetError: DEADLINE, it has passed already.
    """
    seconds = [] if deadline_seconds is None else [deadline_seconds]
    if request.HasField("deadline"):
        seconds.append(request.deadline.ToNanoseconds() / 1e9 - time.time())
    if not seconds:
        return None
    if min(seconds) <= 0:
        raise FleetError(Reason.DEADLINE, "The request's deadline has passed.")
    return min(seconds)
