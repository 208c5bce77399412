"""Begins generations: finds the instance, builds the prompt, settles every choice."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.timeouts import timeout
from services.neuron.chat.thinking_budget import ThinkingBudget
from services.neuron.engine_api.task import Task
from services.neuron.instances.instances import Instance, Instances
from services.neuron.metrics import NeuronMetrics
from services.neuron.serving import convert
from services.neuron.serving.accounting import GenerationFigures
from services.neuron.serving.end_timers import StallLimits
from services.neuron.serving.event_sink import EventSink
from services.neuron.serving.generation import Generation
from services.neuron.serving.generation_trace import GenerationTrace, GenerationTraces
from services.neuron.serving.prompt import Composed, compose, marks_of
from services.neuron.serving.replays import Replays
from services.neuron.settings import NeuronSettings


class Generations:
    """Begins the generations of this neuron: finds the instance, composes the prompt, submits.

    Args:
        instances: the loaded models.
        settings: of the neuron.
        metrics: where figures go.
        faults: notes what nobody foresaw.
        traces: begins the traces of generations.
        watts: the power of devices together, where it is known.
    """

    def __init__(
        self,
        *,
        instances: Instances,
        settings: NeuronSettings,
        metrics: NeuronMetrics,
        faults: Faults,
        traces: GenerationTraces,
        watts: Callable[[Sequence[str]], float | None],
    ) -> None:
        self._watts = watts
        self._traces = traces
        self._instances = instances
        self._limits = StallLimits(settings.slow_reader_seconds, settings.workers.recovery_seconds)
        self._metrics = metrics
        self._replays = Replays(faults)

    async def begin(
        self,
        request: generation.GenerateRequest,
        sink: EventSink,
        *,
        credit_tokens: int | None,
        deadline_seconds: float | None = None,
    ) -> Generation:
        """Begins one generation; its events go to the sink.

        Args:
            request: what is asked.
            sink: takes the events.
            credit_tokens: tokens that may be sent before more credit comes; None is no limit.
            deadline_seconds: seconds until the caller gives up, beside the request's own deadline.

        Raises:
            FleetError: why it cannot begin.
        """
        trace = self._traces.begin(request)
        try:
            return await self._begin(
                request,
                sink,
                credit_tokens=credit_tokens,
                seconds=_earliest(request, deadline_seconds),
                trace=trace,
            )
        except BaseException as error:
            trace.refuse(error)
            raise

    async def _begin(
        self,
        request: generation.GenerateRequest,
        sink: EventSink,
        *,
        credit_tokens: int | None,
        seconds: float | None,
        trace: GenerationTrace,
    ) -> Generation:
        begun = time.monotonic()
        instance = self._instances.admit(request.model, request.instance_id)
        _check_origin(instance, request)
        try:
            async with timeout(seconds):
                composed = await compose(instance, request)
        except TimeoutError as late:
            raise _passed() from late
        # It may have begun to drain meanwhile.
        instance = self._instances.admit(request.model, instance.instance_id)
        link = instance.link
        assert link is not None, "a READY instance has a worker"
        task = _task(
            instance,
            request,
            composed,
            task_id=link.new_task_id(),
            credit_tokens=credit_tokens,
        )
        made = Generation(
            account=GenerationFigures(
                request_id=request.request_id,
                model=instance.model,
                instance_id=instance.instance_id,
                metrics=self._metrics,
                devices=1 if instance.key is None else instance.key.device_count,
                watts=functools.partial(
                    self._watts, () if instance.key is None else instance.key.device_ids
                ),
                moved_tokens=len(task.resume_token_ids),
                trace=trace,
            ),
            instance=instance,
            task=task,
            parser=composed.parser,
            sink=sink,
            instances=self._instances,
            limits=self._limits,
            replays=self._replays,
            budget=_budget(instance, request.reasoning),
            most_calls=_most_calls(request.chat),
        )
        made.start(link, None if seconds is None else seconds - (time.monotonic() - begun))
        return made


def _check_origin(instance: Instance, request: generation.GenerateRequest) -> None:
    """Refuses tokens that other files than this instance's have made.

    Raises:
        FleetError: INSTANCE_MISMATCH.
    """
    wanted, weights = request.resume_fingerprint, instance.weights
    if wanted and weights is not None and weights.fingerprint != wanted:
        raise FleetError(
            Reason.INSTANCE_MISMATCH,
            f"The answer was begun by another version of {instance.model} than is loaded here.",
            field="resume_fingerprint",
        )


def _most_calls(chat: conversation.Chat) -> int | None:
    """1 for clients that forbid parallel tool calls; None for no limit."""
    return 1 if chat.HasField("parallel_tool_calls") and not chat.parallel_tool_calls else None


def _budget(instance: Instance, reasoning: generation.Reasoning) -> ThinkingBudget | None:
    if instance.closing is None or not reasoning.HasField("budget_tokens"):
        return None
    return ThinkingBudget(reasoning.budget_tokens, instance.closing)


def _task(
    instance: Instance,
    request: generation.GenerateRequest,
    composed: Composed,
    *,
    task_id: int,
    credit_tokens: int | None,
) -> Task:
    info = instance.info
    assert info is not None
    own = convert.sampling(instance.spec.default_sampling, info.default_sampling)
    return Task(
        task_id=task_id,
        instance_id=instance.instance_id,
        prompt=composed.prompt,
        sampling=convert.sampling(request.sampling, own),
        stop=convert.stop(request.stop),
        constraint=composed.constraint,
        top_logprobs=convert.top_logprobs(request),
        echo_prompt_logprobs=request.echo_prompt,
        resume_token_ids=tuple(request.resume_from.ids),
        tells_resumed=bool(request.resume_from.ids),
        principal=request.principal,
        work_class=convert.work_class(request.work_class),
        credit_tokens=credit_tokens,
        images=composed.images,
        max_context_tokens=(
            request.max_context_tokens if request.HasField("max_context_tokens") else None
        ),
        marks=marks_of(request, composed.prompt),
    )


def _earliest(request: generation.GenerateRequest, deadline_seconds: float | None) -> float | None:
    """Seconds until the first of both deadlines.

    Raises:
        FleetError: DEADLINE, it has passed already; BAD_REQUEST, it is no time.
    """
    seconds = [] if deadline_seconds is None else [deadline_seconds]
    if request.HasField("deadline"):
        try:
            seconds.append(protobuf_time.seconds(request.deadline) - time.time())
        except ValueError as error:  # a protobuf's seconds may be any number
            told = f"The deadline is no time: {error}"
            raise FleetError(Reason.BAD_REQUEST, told, field="deadline") from None
    if not seconds:
        return None
    if min(seconds) <= 0:
        raise _passed()
    return min(seconds)


def _passed() -> FleetError:
    return FleetError(Reason.DEADLINE, "The request's deadline has passed.")
