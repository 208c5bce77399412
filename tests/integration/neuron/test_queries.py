"""Counts, fits, embeddings and kinds of prompts over real gRPC with a real worker."""

from __future__ import annotations

import pytest

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import Reason
from tests.doubles import tiny_bert
from tests.doubles.neuron_host import chat, refusal


async def test_count_tokens_counts_the_template_too(host):
    await host.load("bravo")
    turns = chat("hello").chat

    whole = await host.stub.CountTokens(
        neuron.CountTokensRequest(model="bravo", chat=turns, return_token_ids=True)
    )
    text = await host.stub.CountTokens(neuron.CountTokensRequest(model="bravo", text="hello"))

    assert whole.tokens == len(whole.token_ids.ids) > text.tokens == len("hello")
    assert whole.max_context_tokens == 4096


async def test_can_fit_compares_the_file_and_its_cache_with_what_is_free(host):
    fits = await host.stub.CanFit(neuron.CanFitRequest(spec=model.LoadSpec(model="bravo")))
    many = fits.devices[0].free_bytes // (1024 * 512)  # a quarter of the model's context each
    huge = await host.stub.CanFit(
        neuron.CanFitRequest(spec=model.LoadSpec(model="bravo", max_sequences=many))
    )

    assert fits.fits
    assert fits.required_bytes > (host.folder / "bravo.gguf").stat().st_size
    assert not huge.fits
    assert "MiB free" in huge.devices[0].reason
    assert "context of" in huge.advice


async def test_vectors_come_in_order_and_can_be_cut(host):
    tiny_bert.build(host.folder / "bert.gguf")
    ready = await host.load("bert")
    texts = [neuron.EmbedInput(text="a b"), neuron.EmbedInput(text="c")]

    whole = await host.stub.Embed(neuron.EmbedRequest(model="bert", inputs=texts))
    cut = await host.stub.Embed(neuron.EmbedRequest(model="bert", inputs=texts, dimensions=4))

    assert list(ready.capabilities) == [model.CAPABILITY_EMBEDDING]
    assert whole.instance_id == ready.instance_id
    assert whole.prompt_tokens > 0
    assert len(whole.embeddings) == len(cut.embeddings) == 2
    assert list(whole.embeddings[0].values) != list(whole.embeddings[1].values)
    for vector in (whole.embeddings[0].values, cut.embeddings[0].values):
        assert sum(value * value for value in vector) == pytest.approx(1, abs=1e-3)
    assert len(cut.embeddings[0].values) == 4


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"inputs": [neuron.EmbedInput(text="a"), neuron.EmbedInput(text="")]}, "inputs.1"),
        ({"inputs": [neuron.EmbedInput(text="a")], "dimensions": 0}, "dimensions"),
        ({"inputs": [neuron.EmbedInput(text="a")], "dimensions": 4096}, "dimensions"),
    ],
)
async def test_embeddings_that_cannot_be_name_their_field(host, fields, field):
    tiny_bert.build(host.folder / "bert.gguf")
    await host.load("bert")

    error = await refusal(host.stub.Embed(neuron.EmbedRequest(model="bert", **fields)))

    assert (error.reason, error.field) == (Reason.BAD_REQUEST, field)


async def test_an_embedder_does_not_generate(host):
    tiny_bert.build(host.folder / "bert.gguf")
    await host.load("bert")

    assert (await refusal(host.stub.Generate(chat(model="bert")))).reason is Reason.WRONG_MODALITY


async def test_embedding_with_a_generator_is_the_wrong_modality(host):
    await host.load("bravo")
    request = neuron.EmbedRequest(model="bravo", inputs=[neuron.EmbedInput(text="x")])

    assert (await refusal(host.stub.Embed(request))).reason is Reason.WRONG_MODALITY


async def test_embedding_nothing_asks_for_no_modality(host):
    ready = await host.load("bravo")

    answer = await host.stub.Embed(neuron.EmbedRequest(model="bravo"))

    assert answer == neuron.EmbedResponse(instance_id=ready.instance_id)


async def test_a_raw_prompt_may_say_control_tokens_and_a_chat_may_not(host):
    host.script("base", chat_template=None)
    await host.load("base")
    await host.load("bravo")
    said = "<|im_start|>a<|im_end|>"

    for name in ("base", "bravo"):
        counted = await host.stub.CountTokens(neuron.CountTokensRequest(model=name, text=said))
        run = host.stub.Generate(generation.GenerateRequest(model=name, text=said))
        (end,) = [event.finished async for event in run if event.HasField("finished")]
        assert counted.tokens == end.usage.prompt_tokens == 3
    counts = [
        await host.stub.CountTokens(neuron.CountTokensRequest(model="bravo", chat=chat(text).chat))
        for text in ("", said)
    ]
    assert counts[1].tokens - counts[0].tokens == len(said)


async def test_prompts_may_be_raw_text_or_tokens(host):
    await host.load("bravo")
    by_text = generation.GenerateRequest(model="bravo", text="x")
    ids = generation.TokenIds(ids=[13])
    by_ids = generation.GenerateRequest(model="bravo", token_ids=ids)
    bad = generation.GenerateRequest(model="bravo", token_ids=generation.TokenIds(ids=[10**6]))

    texts = [
        "".join([event.text.text async for event in host.stub.Generate(request)])
        for request in (by_text, by_ids)
    ]

    assert texts == ["Hello from model bravo"] * 2
    assert (await refusal(host.stub.Generate(bad))).field == "token_ids"
