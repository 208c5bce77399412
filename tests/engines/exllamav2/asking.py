"""Greedy answers over gRPC, and how clear their choices were."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from cortex.v1 import generation_pb2 as generation
from tests.doubles.neuron_host import NeuronHost

_AT_ONCE = 16
Said = tuple[list[int], float]
"""Token ids, and how much likelier the least clear of them was than the second best."""


async def answers(
    host: NeuronHost, model: str, asked: Mapping[str, Sequence[int]], *, tokens: int
) -> dict[str, Said]:
    """What a model says to each of several prompts, as many at once as no queue is too short for."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def say(ids: Sequence[int]) -> Said:
        async with places:
            return await _say(host, model, ids, tokens)

    said = await asyncio.gather(*map(say, asked.values()))
    return dict(zip(asked, said, strict=True))


async def _say(host: NeuronHost, model: str, token_ids: Sequence[int], tokens: int) -> Said:
    request = generation.GenerateRequest(
        model=model,
        token_ids=generation.TokenIds(ids=token_ids),
        sampling=generation.Sampling(temperature=0),
        stop=generation.StopRules(max_tokens=tokens, ignore_eos=True),
        top_logprobs=2,
    )
    ids: list[int] = []
    margins: list[float] = []
    async for answer in host.stub.Generate(request):
        if answer.HasField("text"):
            ids.extend(answer.text.token_ids)
            margins += [
                one.alternatives[0].logprob - one.alternatives[1].logprob
                for one in answer.text.logprobs
            ]
    return ids, min(margins)
