"""Counts tokens, embeds, and says what would fit: the calls that end with one answer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator, Sequence

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.written_text import most_counted
from services.backplane.timeouts import timeout
from services.neuron.chat.template import raw_prompt, text_prompt
from services.neuron.engine_api.task import Prompt
from services.neuron.instances import fit
from services.neuron.instances.assign import Assignments
from services.neuron.instances.division import room
from services.neuron.instances.instances import Instances
from services.neuron.rendering.aside import aside
from services.neuron.serving.least_tokens import refuse_endless_chat, refuse_endless_text
from services.neuron.serving.prompt import compose, render
from services.neuron.serving.waiting_calls import WaitingCalls
from services.neuron.sources.resolver import Sources

_ANSWER_SECONDS = 120.0
# Calls that wait for workers.
_MOST_CALLS = 128


class Measures:
    """Answers what is no generation: token counts, embeddings, and whether a model would fit."""

    def __init__(
        self,
        *,
        instances: Instances,
        sources: Sources,
        assignments: Assignments,
    ) -> None:
        """Answers nothing yet.

        Args:
            instances: all of this neuron.
            sources: where weights come from.
            assignments: where loads go.
        """
        self._instances = instances
        self._sources = sources
        self._assignments = assignments
        self._waiting = WaitingCalls(_MOST_CALLS)

    async def count(self, request: neuron.CountTokensRequest) -> neuron.CountTokensResponse:
        """The tokens that a prompt would take, chat template included."""
        instance = self._instances.admit(request.model, request.instance_id)
        info, link = instance.info, instance.link
        assert info is not None
        most, size = most_counted(info.max_context_tokens), request.ByteSize()
        match request.WhichOneof("prompt"):
            case "chat":
                await aside(size, refuse_endless_chat, info, request.chat, most)
                nothing = generation.Reasoning()
                prompt = (await render(instance, request.chat, nothing, size=size)).prompt
            case "text":
                await aside(size, refuse_endless_text, info, request.text, most)
                prompt = await aside(size, raw_prompt, request.text, instance.control_tokens)
            case _:
                raise FleetError(Reason.BAD_REQUEST, "There is no prompt.", field="prompt")
        if link is None:
            raise FleetError(Reason.INSTANCE_RECOVERING, "Its worker was lost.")
        async with self._answer_in_time(request.principal):
            counted = await link.count(
                instance.instance_id,
                prompt,
                principal=request.principal,
                wants_ids=request.return_token_ids,
            )
        answer = neuron.CountTokensResponse(
            tokens=counted.tokens, max_context_tokens=info.max_context_tokens
        )
        if request.return_token_ids:
            answer.token_ids.ids.extend(counted.token_ids)
        return answer

    async def compare(self, request: generation.GenerateRequest) -> neuron.ComparePromptResponse:
        """How much of a prompt need not be read, and where what is held parts from it."""
        instance = self._instances.admit(request.model, request.instance_id)
        prompt = (await compose(instance, request)).prompt
        link = instance.link
        if link is None:
            raise FleetError(Reason.INSTANCE_RECOVERING, "Its worker was lost.")
        principal = request.principal
        async with self._answer_in_time(principal):
            ids = prompt.token_ids
            if ids is None:
                counted = await link.count(
                    instance.instance_id, prompt, principal=principal, wants_ids=True
                )
                ids = counted.token_ids
            found = await link.compare(instance.instance_id, ids, principal=principal)
        return neuron.ComparePromptResponse(
            instance_id=instance.instance_id,
            prompt_tokens=len(ids),
            cached_tokens=found.cached_tokens,
            saved_tokens=found.saved_tokens,
            alike=found.alike,
            asked=found.asked,
            held=found.held,
            seconds_per_token=found.seconds_per_token,
        )

    async def embed(self, request: neuron.EmbedRequest) -> neuron.EmbedResponse:
        """One vector per input; without any the model, of whatever kind, is only loaded."""
        instance = self._instances.admit(request.model, request.instance_id)
        info, link = instance.info, instance.link
        assert info is not None
        assert link is not None, "a READY instance has a worker"
        if not request.inputs:
            return neuron.EmbedResponse(instance_id=instance.instance_id)
        if not info.embedding_size:
            raise FleetError(
                Reason.WRONG_MODALITY, f"{instance.model} makes no vectors.", field="model"
            )
        size = request.dimensions if request.HasField("dimensions") else info.embedding_size
        if not 1 <= size <= info.embedding_size:
            raise FleetError(
                Reason.BAD_REQUEST,
                f"{instance.model} makes vectors of 1 to {info.embedding_size} numbers.",
                field="dimensions",
            )
        inputs = tuple(_input(index, one) for index, one in enumerate(request.inputs))
        async with self._answer_in_time(request.principal):
            answer = await link.embed(
                instance.instance_id,
                inputs,
                truncate=request.truncate,
                principal=request.principal,
            )
        return neuron.EmbedResponse(
            embeddings=[neuron.Embedding(values=_cut(each, size)) for each in answer.vectors],
            prompt_tokens=answer.prompt_tokens,
            instance_id=instance.instance_id,
        )

    async def can_fit(self, request: neuron.CanFitRequest) -> neuron.CanFitResponse:
        """Whether a model would fit, device by device, without loading or fetching it."""
        spec = request.spec
        weights = await self._sources.foresee(spec)
        placed, devices = await self._assignments.consider(spec, weights)
        verdicts = [
            neuron.DeviceVerdict(
                device_id=device.device_id,
                fits=not (reason := fit.verdict(placed, spec, device)),
                free_bytes=room(device),
                reason=reason,
            )
            for device in devices
        ]
        its_own = [one for one in verdicts if one.device_id in placed.key.device_ids]
        together = sum(one.free_bytes for one in its_own)
        return neuron.CanFitResponse(
            fits=placed.fits,
            required_bytes=placed.required_bytes,
            devices=verdicts,
            plan="" if placed.division is None else placed.division.why,
            advice="" if placed.fits else fit.advice(spec, weights, together),
        )

    @contextlib.asynccontextmanager
    async def _answer_in_time(self, principal: str) -> AsyncGenerator[None]:
        """Bounds a call: DEADLINE after two minutes, QUEUE_FULL where 128 calls wait already."""
        try:
            async with self._waiting.one(principal), timeout(_ANSWER_SECONDS):
                yield
        except TimeoutError as late:
            raise FleetError(Reason.DEADLINE, "The engine did not answer in time.") from late


def _input(index: int, one: neuron.EmbedInput) -> Prompt:
    match one.WhichOneof("input"):
        case "text" if one.text:
            return text_prompt(one.text)
        case "token_ids" if one.token_ids.ids:
            return Prompt(token_ids=tuple(one.token_ids.ids))
        case _:
            raise FleetError(Reason.BAD_REQUEST, "The input is empty.", field=f"inputs.{index}")


def _cut(vector: Sequence[float], size: int) -> Sequence[float]:
    """The first numbers, at length one again (Matryoshka embeddings)."""
    if size == len(vector):
        return vector
    kept = vector[:size]
    length = math.sqrt(math.fsum(value * value for value in kept)) or 1.0
    return [value / length for value in kept]
