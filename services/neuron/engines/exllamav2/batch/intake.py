"""What is checked before a task may queue: the library would crash on it, or only assert. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from services.backplane.errors import FleetError, Reason, context_too_long
from services.neuron.engine_api.events import Queued
from services.neuron.engine_api.task import Task
from services.neuron.engines.common.admission import Pace


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What a task must keep to.

    Attributes:
        context_tokens: longest prompt plus completion.
        cache_tokens: what one task may take of the cache at most, drafts not counted.
        vocabulary: token ids are below this.
        reads_images: there is a vision tower.
        echo_tokens: longest prompt whose own log probabilities can be told.
    """

    context_tokens: int
    cache_tokens: int
    vocabulary: int
    reads_images: bool
    echo_tokens: int

    @property
    def longest(self) -> int:
        """Longest prompt plus completion that can run."""
        return min(self.context_tokens, self.cache_tokens)


def check(task: Task, prompt: Sequence[int], limits: Limits) -> None:
    """Refuses what can never run.

    Args:
        task: what was asked for.
        prompt: its token ids, with those of pictures.
        limits: of the model.

    Raises:
        FleetError: WRONG_MODALITY, BAD_REQUEST, UNSUPPORTED_FIELD, CONTEXT_TOO_LONG or NEVER_FITS.
    """
    if task.images and not limits.reads_images:
        raise FleetError(Reason.WRONG_MODALITY, "This model reads no images.")
    if not prompt:
        raise FleetError(Reason.BAD_REQUEST, "The prompt is empty.", field="prompt")
    # Room for at least one token of output, unless none is wanted.
    needed = len(prompt) + len(task.resume_token_ids) + (task.stop.max_tokens != 0)
    if needed > limits.context_tokens:
        raise context_too_long(prompt_tokens=len(prompt), max_tokens=limits.context_tokens)
    most = len(prompt) + (task.stop.max_tokens or 0)
    if max(needed, min(most, limits.context_tokens)) > limits.cache_tokens:
        raise _never_fits(max(needed, most), limits.cache_tokens)
    if task.echo_prompt_logprobs and len(prompt) > limits.echo_tokens:
        raise FleetError(
            Reason.UNSUPPORTED_FIELD,
            f"Log probabilities of the prompt are told for up to {limits.echo_tokens} tokens;"
            f" this one has {len(prompt)}.",
            field="logprobs.echo_prompt",
        )
    _refuse_unknown("sampling.logit_bias", task.sampling.logit_bias, limits.vocabulary)
    _refuse_unknown("stop.stop_token_ids", task.stop.token_ids, limits.vocabulary)
    _refuse_unknown("resume_from", task.resume_token_ids, limits.vocabulary)


def places(order: Sequence[int], pace: Pace) -> list[Queued]:
    """What tasks that wait hear: their place and how long it may take."""
    return [Queued(key, n, pace.seconds_until(n)) for n, key in enumerate(order)]


def queue_full(waiting: int, pace: Pace) -> FleetError:
    """No place is left in the queue."""
    return FleetError(
        Reason.QUEUE_FULL,
        f"{waiting} requests wait for this model already.",
        retry_after_seconds=pace.seconds_until(waiting),
        facts={"queued": str(waiting)},
    )


def queue_timed_out(seconds: float, waiting: int, pace: Pace) -> FleetError:
    """A place came too late."""
    return FleetError(
        Reason.QUEUE_TIMEOUT,
        f"No place became free within {seconds:.1f} seconds.",
        retry_after_seconds=pace.seconds_until(waiting),
    )


def _never_fits(needed: int, cache: int) -> FleetError:
    return FleetError(
        Reason.NEVER_FITS,
        f"The request takes up to {needed} tokens of cache; the model was loaded with {cache}.",
        facts={"needed_tokens": str(needed), "cache_tokens": str(cache)},
    )


def _refuse_unknown(field: str, token_ids: Iterable[int], vocabulary: int) -> None:
    for token_id in token_ids:
        if not 0 <= token_id < vocabulary:
            raise FleetError(
                Reason.BAD_REQUEST,
                f"Token id {token_id} is not in the vocabulary (0 to {vocabulary - 1}).",
                field=field,
            )
