"""What a request may cost, and what of its limits it carries to the neuron."""

from __future__ import annotations

from collections.abc import Sequence

from cortex.v1 import generation_pb2 as generation
from services.gateway.limits.account import Cost
from services.gateway.limits.device_costs import DeviceCosts
from services.gateway.limits.estimate import UNSTATED_OUTPUT_TOKENS, prompt_tokens
from services.gateway.limits.settings import KeyLimits


def bounded(
    requests: Sequence[generation.GenerateRequest], limits: KeyLimits, costs: DeviceCosts | None
) -> Cost:
    """Caps the context and answers of a request's generations to its limits; returns their cost.

    Args:
        requests: the choices of one request.
        limits: of its principal.
        costs: by which the devices' time is estimated; None where it is not limited.
    """
    most, context = limits.max_output_tokens, limits.max_context_tokens
    tokens = unstated = prompts = 0
    for request in requests:
        prompt = prompt_tokens(request)
        prompts += prompt
        tokens += prompt
        stop = request.stop
        output = stop.max_tokens
        if output or stop.HasField("max_tokens"):
            if most is not None and output > most:
                stop.max_tokens = output = most
            tokens += output
        elif most is not None:
            stop.max_tokens = most
            unstated += min(most, UNSTATED_OUTPUT_TOKENS)
        else:
            unstated += UNSTATED_OUTPUT_TOKENS
        if context is not None:
            request.max_context_tokens = context
    count = len(requests)
    devices = 0
    if costs is not None:
        devices = costs.milliseconds(
            requests[0].model, prompt_tokens=prompts, output_tokens=tokens - prompts + unstated
        )
    return Cost(count, count, tokens, unstated, devices)
