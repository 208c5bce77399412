"""What a real worker's cache holds, told over the contract."""

from __future__ import annotations

import asyncio
import pathlib

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from tests.doubles import random_llama
from tests.doubles.neuron_host import NeuronHost, running_neuron

PROMPT = [3 + (i * 37) % 256 for i in range(300)]
WHOLE = b"w" * 16


def request(ids: list[int], principal: str = "ann") -> generation.GenerateRequest:
    return generation.GenerateRequest(
        model="m",
        token_ids=generation.TokenIds(ids=ids),
        sampling=generation.Sampling(temperature=0),
        stop=generation.StopRules(max_tokens=4, ignore_eos=True),
        principal=principal,
        marks=generation.PrefixMarks(whole=WHOLE),
    )


async def ask(host: NeuronHost, ids: list[int]) -> None:
    async for _ in host.stub.Generate(request(ids)):
        pass


async def compare(
    host: NeuronHost, ids: list[int], principal: str = "ann"
) -> neuron.ComparePromptResponse:
    return await host.stub.ComparePrompt(
        neuron.ComparePromptRequest(request=request(ids, principal))
    )


async def test_what_was_read_is_told_and_gone_with_the_worker(tmp_path: pathlib.Path) -> None:
    random_llama.build(tmp_path / "m.gguf")
    async with running_neuron(tmp_path) as host:
        await host.load("m")
        following = host.stub.WatchCache(neuron.WatchCacheRequest())
        known: dict[bytes, int] = {}

        async def until(tokens: int | None) -> None:
            async with asyncio.timeout(60):
                while known.get(WHOLE) != tokens:
                    for change in (await following.read()).changes:
                        if change.whole:
                            known.clear()
                        known.update({one.digest: one.tokens for one in change.held})

        await ask(host, PROMPT)
        await until(len(PROMPT))
        async for _ in host.stub.Unload(neuron.UnloadRequest(model="m")):
            pass
        await host.load("m")
        await ask(host, [9, *PROMPT])
        await until(len(PROMPT) + 1)


async def test_a_comparison_says_where_a_prompt_parts_from_the_cache(
    tmp_path: pathlib.Path,
) -> None:
    random_llama.build(tmp_path / "m.gguf")
    async with running_neuron(tmp_path) as host:
        await host.load("m")
        await ask(host, PROMPT)

        same = await compare(host, [*PROMPT, 7])
        parted = await compare(host, [*PROMPT[:200], 5, *PROMPT[200:]])
        other = await compare(host, PROMPT, "bob")

        assert (same.prompt_tokens, same.cached_tokens) == (301, 300)
        assert parted.cached_tokens == 200
        assert parted.asked
        assert parted.held
        assert (other.cached_tokens, other.alike, other.held) == (0, "", "")


async def test_what_chats_share_is_told_apart_from_the_whole(host: NeuronHost) -> None:
    await host.load("bravo")
    following = host.stub.WatchCache(neuron.WatchCacheRequest())
    known: dict[bytes, int] = {}

    def chat(text: str, whole: bytes) -> generation.GenerateRequest:
        made = generation.GenerateRequest(model="bravo")
        made.chat.messages.add(role=conversation.ROLE_SYSTEM).parts.add(text="Be brief. " * 30)
        made.chat.messages.add(role=conversation.ROLE_USER).parts.add(text=text)
        made.marks.head, made.marks.whole = b"h" * 16, whole
        return made

    async def cached(asked: generation.GenerateRequest) -> int:
        events = [event async for event in host.stub.Generate(asked)]
        found: int = events[-1].finished.usage.cached_prompt_tokens
        return found

    await cached(chat("Where is the sea?", WHOLE))
    async with asyncio.timeout(60):
        while not {b"h" * 16, WHOLE} <= known.keys():
            for change in (await following.read()).changes:
                known.update({one.digest: one.tokens for one in change.held})

    assert 0 < known[b"h" * 16] < known[WHOLE]
    assert await cached(chat("Who are you?", b"x" * 16)) >= known[b"h" * 16]


async def cached(host: NeuronHost, principal: str) -> int:
    """The tokens of the prompt that an answer says were in the cache."""
    events = [event async for event in host.stub.Generate(request(PROMPT, principal))]
    return next(each.started.cached_prompt_tokens for each in events if each.HasField("started"))


async def test_a_prompt_of_another_principal_is_as_one_that_nobody_asked(
    tmp_path: pathlib.Path,
) -> None:
    """Neither is told of it by the counts of his own answers."""
    random_llama.build(tmp_path / "m.gguf")
    async with running_neuron(tmp_path) as host:
        await host.load("m")

        assert await cached(host, "ann") == 0
        assert await cached(host, "bob") == 0
        assert await cached(host, "ann") > 0
        assert await cached(host, "bob") > 0
