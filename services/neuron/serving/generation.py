"""One generation, from its submission to its only end.

Driven by the worker's events and by its caller, all from the event loop; it never waits. It owns
what has to outlive a worker: the tokens made so far, the parser's state, the credit that is left.
With those it can be submitted again, to go on behind its own tokens: on the next worker when one
died, or past the end of its reasoning when that took too long.
"""

from __future__ import annotations

from typing import assert_never

import msgspec
from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.neuron.chat.stream import ChatParser
from services.neuron.chat.thinking_budget import ThinkingBudget
from services.neuron.engine_api.device_time import Charge
from services.neuron.engine_api.events import (
    Delta,
    Ended,
    EndReason,
    Event,
    Failed,
    Prefilled,
    Queued,
    Started,
)
from services.neuron.engine_api.task import Task
from services.neuron.instances.instances import Instance, Instances, State
from services.neuron.instances.running import RunningGeneration, Suspicion
from services.neuron.serving import convert
from services.neuron.serving.accounting import GenerationFigures
from services.neuron.serving.delivery import Delivery
from services.neuron.serving.end_timers import EndTimers, StallLimits
from services.neuron.serving.event_sink import EventSink
from services.neuron.serving.replays import ReplayGate, Replays
from services.neuron.supervisor.failures import failed_task
from services.neuron.supervisor.link import WorkerLink
from services.neuron.supervisor.task_listener import TaskListener


class Generation(TaskListener, RunningGeneration):
    """One request on one instance."""

    def __init__(
        self,
        *,
        account: GenerationFigures,
        instance: Instance,
        task: Task,
        parser: ChatParser,
        sink: EventSink,
        instances: Instances,
        limits: StallLimits,
        replays: Replays,
        budget: ThinkingBudget | None = None,
        most_calls: int | None = None,
    ) -> None:
        self._instance = instance
        self._instances = instances
        self._task = task
        self._sink = sink
        self._delivery = Delivery(
            parser=parser,
            sink=sink,
            made=task.resume_token_ids,
            credit=task.credit_tokens,
            most_calls=most_calls,
        )
        self._budget = budget
        self._limits = limits
        self._account = account
        self._is_moved = bool(task.resume_token_ids)
        self.caller = task.principal or f"task {task.task_id}"
        self._gate = ReplayGate(self, self._delivery, replays)
        self._link: WorkerLink | None = None
        self._is_over = False
        self._is_told = False
        self._is_resumed = False
        self.suspicion = Suspicion()
        self._started: Started | None = None
        self._timers = EndTimers(self.fail)

    # What its caller does.

    def start(self, link: WorkerLink, deadline_seconds: float | None) -> None:
        """Submits the generation to a worker.

        Args:
            link: to the worker that holds the instance.
            deadline_seconds: it is ended after this long; None for no deadline.

        Raises:
            FleetError: WORKER_LOST.
        """
        self._link = link
        self._gate.submit(link, self._task)
        self._instances.begin(self._instance, self)
        if deadline_seconds is not None:
            self._timers.set_deadline(deadline_seconds)
        self._mind_credit()

    def grant(self, tokens: int) -> None:
        """Lets the generation send this many more tokens to its reader."""
        if self._is_over or self._delivery.credit is None:
            return
        self._delivery.credit += tokens
        if self._link is not None:
            self._link.credit(self._task.task_id, tokens)
        self._mind_credit()

    def cancel(self) -> None:
        """Frees its place at once, because nobody reads any more. No event follows."""
        if not self._is_over:
            self._is_told = True
            self._withdraw()
            self._close("cancelled", None)

    @override
    def fail(self, error: FleetError) -> None:
        if self._is_told:
            return
        try:
            if not self._is_over:
                self._withdraw()
                self._close("failed", error)
        finally:  # the caller hears of it whatever goes wrong
            self._sink.failed(error)
            self._is_told = True

    # What its worker does.

    @override
    def on_event(self, event: Event) -> None:
        """Passes an event of the worker on to the caller, in the contract's form."""
        match event:
            case Delta():
                self._on_delta(event)
            case Started():
                self._on_started(event)
            case Queued():
                if self._started is None:
                    self._sink.event(convert.queued(event))
            case Prefilled():
                if not self._account.has_output:
                    self._sink.event(convert.prefilled(event))
            case Ended():
                self._on_ended(event)
            case Failed():
                self._link = None
                self.fail(failed_task(event))
            case _:
                assert_never(event)

    @override
    def on_time(self, charge: Charge) -> None:
        self._account.note_time(charge)

    @override
    def on_worker_lost(self, error: FleetError, *, is_alone: bool) -> None:
        """Waits for the next worker; fails where it may be what the workers die of."""
        self._link = None
        if self._is_over:
            return
        if not self.suspicion.note_death(len(self._delivery.made), is_alone=is_alone):
            told = "Workers died with this request in them; it is not tried again."
            self.fail(FleetError(Reason.INTERNAL, told))
            return
        if self._instance.state is not State.RECOVERING:
            self.fail(error)
            return
        # Until it goes on, only the end of this wait can end it.
        self._timers.stands_still(self._limits.recovery_seconds, error)

    @override
    def resume(self, link: WorkerLink) -> None:
        """Goes on behind the tokens made so far, on a new worker."""
        if self._is_over or self._link is not None:
            return
        self._timers.goes_on()
        self.suspicion.begin_turn()
        self._is_resumed = True
        self._account.note_resumed()
        self._submit_again(link)

    def _submit_again(self, link: WorkerLink) -> None:
        """Goes on behind the tokens made so far."""
        credit = self._delivery.credit
        self._task = msgspec.structs.replace(
            self._task,
            task_id=link.new_task_id(),
            resume_token_ids=tuple(self._delivery.made),
            tells_resumed=self._started is None and self._task.tells_resumed,
            credit_tokens=None if credit is None else max(0, credit),
        )
        try:
            self._gate.submit(link, self._task)
        except FleetError as error:
            self.fail(error)
            return
        self._link = link
        self._mind_credit()

    # Events.

    def _on_started(self, event: Started) -> None:
        if self._started is None:
            self._started = event
            self._account.note_admitted()
            instance = self._instance
            self._sink.event(convert.started(event, instance.instance_id, instance.weights))

    def _on_delta(self, event: Delta) -> None:
        self._account.note_output()
        self._delivery.take(event)
        self.suspicion.note_made(len(self._delivery.made))
        if self._delivery.is_done:
            self._withdraw()
            self._finish(generation.FINISH_REASON_TOOL_CALLS)
            return
        self._mind_credit()
        self._mind_budget()

    def _on_ended(self, event: Ended) -> None:
        self._link = None
        self._delivery.finish(is_cut=event.reason is not EndReason.END_OF_TURN)
        reason = convert.finish_reason(event.reason)
        if self._delivery.has_called and event.reason is EndReason.END_OF_TURN:
            reason = generation.FINISH_REASON_TOOL_CALLS
        self._account.note_times(event, len(self._delivery.made))
        self._finish(reason, event)

    def _finish(self, reason: generation.FinishReason.ValueType, end: Ended | None = None) -> None:
        finished = generation.GenerationFinished(
            reason=reason,
            stop_string="" if end is None else end.stop_string,
            usage=self._usage(),
            timings=self._account.timings(end),
            resumed=self._is_resumed or self._is_moved,
        )
        self._close("finished", None)
        self._sink.finished(finished)
        self._is_told = True

    def _usage(self) -> generation.Usage:
        started = self._started
        return generation.Usage(
            prompt_tokens=started.prompt_tokens if started else 0,
            cached_prompt_tokens=started.cached_tokens if started else 0,
            completion_tokens=len(self._delivery.made),
            reasoning_tokens=self._delivery.reasoning_tokens,
        )

    # Its end and its waits.

    def _withdraw(self) -> None:
        if self._link is not None:
            self._link.cancel(self._task.task_id)
            self._link = None

    def _close(self, outcome: str, error: FleetError | None) -> None:
        self._is_over = True
        self.suspicion.note_end()
        self._gate.close()
        self._timers.stop()
        self._instances.end(self._instance, self)
        usage = self._usage()
        self._account.close(outcome, usage, error=error, resumed=self._is_resumed)

    def _mind_credit(self) -> None:
        """Starts the clock of a reader that takes nothing, and stops it when it does."""
        credit = self._delivery.credit
        if credit is None or self._is_over or self._link is None:
            return
        if credit > 0:
            self._timers.goes_on()
        elif not self._timers.is_standing_still:
            slow = FleetError(Reason.SLOW_READER, "The answer was not read for too long.")
            self._timers.stands_still(self._limits.slow_reader_seconds, slow)

    def _mind_budget(self) -> None:
        """Ends reasoning that took too long by writing its end, behind which the model goes on."""
        budget, link = self._budget, self._link
        if budget is None or link is None or not self._delivery.is_reasoning:
            return
        if self._delivery.reasoning_tokens >= budget.tokens:
            self._budget = None
            link.cancel(self._task.task_id)
            self._delivery.insert(budget.closing.text, budget.closing.token_ids)
            self._submit_again(link)
