"""NeuronService over real gRPC with a real worker: everything but generations."""

from __future__ import annotations

import asyncio
import pathlib

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import Reason
from services.backplane.rpc.status import from_rpc_error
from tests.doubles import tiny_bert
from tests.doubles.neuron_host import NeuronHost, chat, refusal, running_neuron


@pytest.fixture
async def host(tmp_path: pathlib.Path):
    async with running_neuron(tmp_path) as host:
        host.script("bravo")
        host.script("endless", words=("la", " li", " lu"), is_endless=True)
        yield host


async def health(host: NeuronHost, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(host.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
    return int(answer.status)


async def test_load_streams_its_phases_and_ends_with_ready(host):
    request = neuron.LoadRequest(spec=model.LoadSpec(model="bravo", config_revision=7))

    steps = [step async for step in host.stub.Load(request)]

    phases = [step.progress.phase for step in steps[:-1]]
    assert phases == sorted(phases)
    assert model.LOAD_PHASE_LOADING in phases
    ready = steps[-1].ready
    assert ready.state == model.INSTANCE_STATE_READY
    assert ready.spec.config_revision == 7
    assert ready.max_context_tokens == 4096
    assert ready.engine == "llamacpp"
    assert sum(memory.bytes for memory in ready.memory) > 0
    assert ready.load_duration.ToMilliseconds() > 0


async def test_settings_cap_what_a_load_asks_for(tmp_path):
    async with running_neuron(tmp_path, max_context_tokens=512, max_queued=3) as host:
        host.script("bravo")

        ready = await host.load("bravo", max_context_tokens=2048, max_sequences=2)

        assert ready.max_context_tokens == 512
        assert ready.max_active_requests == 2
        assert ready.max_queued_requests == 3


async def test_callers_of_one_model_share_one_load(host):
    loads = await asyncio.gather(*(host.load("bravo") for _ in range(5)))

    assert len({ready.instance_id for ready in loads}) == 1
    assert len((await host.status()).report.instances) == 1


async def test_loading_what_is_loaded_answers_ready_at_once(host):
    first = await host.load("bravo")

    request = neuron.LoadRequest(spec=model.LoadSpec(model="bravo"))
    steps = [step async for step in host.stub.Load(request)]

    assert len(steps) == 1
    assert steps[0].ready.instance_id == first.instance_id


async def test_two_models_live_in_one_worker(host):
    await host.load("bravo")
    await host.load("endless")

    report = (await host.status()).report

    assert {one.spec.model for one in report.instances} == {"bravo", "endless"}
    assert len(report.workers) == 1


async def test_unload_frees_the_model_and_its_worker(host):
    ready = await host.load("bravo")

    steps = [step async for step in host.stub.Unload(neuron.UnloadRequest(model="bravo"))]

    assert steps[-1].unloaded.instance_id == ready.instance_id
    assert steps[-1].unloaded.freed_bytes > 0
    report = (await host.status()).report
    assert not report.instances
    assert not report.workers


async def test_unload_waits_for_what_runs_and_admits_nothing_more(host):
    await host.load("endless")
    running = host.stub.Generate(chat(model="endless"))
    await host.until_busy("endless")
    unload = aiter(host.stub.Unload(neuron.UnloadRequest(model="endless")))

    first = await anext(unload)
    assert first.draining.active_requests == 1
    refused = await refusal(host.stub.Generate(chat(model="endless")))
    assert refused.reason is Reason.INSTANCE_DRAINING
    running.cancel()
    rest = [step async for step in unload]

    assert rest[-1].HasField("unloaded")


async def test_work_that_outlasts_the_drain_ends_with_an_error(host):
    await host.load("endless")
    running = host.stub.Generate(chat(model="endless"))
    await host.until_busy("endless")
    target = neuron.UnloadRequest(
        model="endless", drain_timeout=duration_pb2.Duration(nanos=1_000_000)
    )

    ended = asyncio.create_task(refusal(running))
    steps = [step async for step in host.stub.Unload(target)]

    assert steps[-1].HasField("unloaded")
    assert (await ended).reason is Reason.INSTANCE_GONE


async def test_unloads_of_one_model_share_one_drain(host):
    await host.load("endless")
    running = host.stub.Generate(chat(model="endless"))
    await host.until_busy("endless")
    unloads = [aiter(host.stub.Unload(neuron.UnloadRequest(model="endless"))) for _ in range(2)]
    for unload in unloads:
        assert (await anext(unload)).draining.active_requests == 1

    running.cancel()
    ends = [[step async for step in unload][-1] for unload in unloads]

    assert all(end.HasField("unloaded") for end in ends)


async def test_a_model_that_is_on_its_way_out_is_loaded_again_behind_it(host):
    first = await host.load("endless")
    running = host.stub.Generate(chat(model="endless"))
    await host.until_busy("endless")
    unload = aiter(host.stub.Unload(neuron.UnloadRequest(model="endless")))
    await anext(unload)

    again = asyncio.create_task(host.load("endless"))
    running.cancel()
    [step async for step in unload]

    assert (await again).instance_id != first.instance_id


async def test_unloading_what_is_being_loaded_abandons_the_load(host):
    call = aiter(host.stub.Load(neuron.LoadRequest(spec=model.LoadSpec(model="bravo"))))
    await anext(call)

    steps = [step async for step in host.stub.Unload(neuron.UnloadRequest(model="bravo"))]

    assert steps[-1].HasField("unloaded")
    with pytest.raises(grpc.aio.AioRpcError) as abandoned:
        async for _ in call:
            pass
    assert from_rpc_error(abandoned.value).reason is Reason.CANCELLED
    assert not (await host.status()).report.instances


async def test_unloading_what_is_not_there_is_not_found(host):
    missing = await refusal(host.stub.Unload(neuron.UnloadRequest(model="bravo")))
    gone = await refusal(host.stub.Unload(neuron.UnloadRequest(instance_id="bravo-1")))
    nothing = await refusal(host.stub.Unload(neuron.UnloadRequest()))

    assert missing.reason is Reason.NOT_FOUND
    assert gone.reason is Reason.INSTANCE_GONE
    assert nothing.reason is Reason.BAD_REQUEST


async def test_a_cut_off_file_is_a_clean_error_and_the_next_load_works(host):
    whole = (host.folder / "bravo.gguf").read_bytes()
    (host.folder / "broken.gguf").write_bytes(whole[: len(whole) // 2])
    (host.folder / "noise.gguf").write_bytes(b"GGUF" + b"\xff" * 64)
    (host.folder / "text.gguf").write_text("not a model")

    for name in ("broken", "noise", "text"):
        request = neuron.LoadRequest(spec=model.LoadSpec(model=name))
        error = await refusal(host.stub.Load(request))
        assert error.reason is Reason.MODEL_FILE_BAD, name
        assert "Traceback" not in error.message

    assert (await host.load("bravo")).state == model.INSTANCE_STATE_READY


@pytest.mark.parametrize(
    ("spec", "reason", "field"),
    [
        ({"model": ""}, Reason.BAD_REQUEST, "spec.model"),
        ({"model": "nowhere"}, Reason.MODEL_UNKNOWN, "spec.model"),
        ({"model": "m", "source": "path:/nowhere.gguf"}, Reason.MODEL_UNKNOWN, None),
        ({"model": "m", "source": "ftp:thing"}, Reason.BAD_REQUEST, "spec.source"),
        ({"model": "m", "source": "package:thing"}, Reason.BAD_REQUEST, "spec.source"),
        ({"model": "m", "source": "hf:a/b"}, Reason.BAD_REQUEST, "spec.source"),
        ({"model": "bravo", "engine": "exllamav2"}, Reason.BAD_REQUEST, "spec.engine"),
        ({"model": "bravo", "device_ids": ["gpu-9"]}, Reason.BAD_REQUEST, "spec.device_ids"),
        ({"model": "bravo", "reasoning_format": "x"}, Reason.BAD_REQUEST, "spec.reasoning_format"),
        ({"model": "bravo", "chat_template": "{% if"}, Reason.TEMPLATE_FAILED, None),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_load_that_cannot_be_says_why(host, spec, reason, field):
    request = neuron.LoadRequest(spec=model.LoadSpec(**spec))

    error = await refusal(host.stub.Load(request))

    assert (error.reason, error.field) == (reason, field)
    assert not (await host.status()).report.instances


async def test_a_load_of_no_use_leaves_nothing_in_the_worker(host):
    await host.load("bravo")
    bad = model.LoadSpec(model="endless", chat_template="{% if")

    await refusal(host.stub.Load(neuron.LoadRequest(spec=bad)))

    assert (await host.load("endless")).state == model.INSTANCE_STATE_READY
    assert {one.spec.model for one in (await host.status()).report.instances} == {
        "bravo",
        "endless",
    }


async def test_a_digest_is_checked(host):
    source = f"path:{host.folder / 'bravo.gguf'}"
    spec = model.LoadSpec(model="bravo", source=source, sha256="0" * 64)

    error = await refusal(host.stub.Load(neuron.LoadRequest(spec=spec)))

    assert error.reason is Reason.MODEL_FILE_BAD


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


async def test_status_lists_disk_devices_and_identity(host):
    # The listing is refreshed twice a minute; this neuron was started with an empty folder.
    async with running_neuron(host.folder) as second:
        status = await second.status()

    assert {stored.model for stored in status.report.stored_models} == {"bravo", "endless"}
    assert status.report.devices[-1].device_id == "cpu"
    assert status.report.devices[-1].memory_free_bytes > 0
    assert status.identity.name == "beast"
    assert status.identity.address.endswith(str(second.served.address.port))
    assert list(status.identity.engines) == ["llamacpp"]


async def test_reports_grow_in_sequence(host):
    first = (await host.status()).report.sequence
    second = (await host.status()).report.sequence

    assert second > first


async def test_watch_status_tells_a_change_without_being_asked(host):
    watch = host.stub.WatchStatus(neuron.WatchStatusRequest())
    first = await watch.read()
    assert not first.status.report.instances

    await host.load("bravo")

    await host.until(lambda status: status.report.instances[0].state == model.INSTANCE_STATE_READY)
    watch.cancel()


async def test_health_has_an_entry_for_each_loaded_model(host):
    assert await health(host, "") == health_pb2.HealthCheckResponse.SERVING
    await host.load("bravo")
    stub = health_pb2_grpc.HealthStub(host.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="model/bravo"))

    seen = await watch.read()
    while seen.status != health_pb2.HealthCheckResponse.SERVING:
        seen = await watch.read()
    [step async for step in host.stub.Unload(neuron.UnloadRequest(model="bravo"))]
    while seen.status != health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
        seen = await watch.read()

    watch.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_the_services(host, version):
    call = host.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))

    answer = await call.read()

    names = {service.name for service in answer.list_services_response.service}
    assert {"cortex.v1.NeuronService", "grpc.health.v1.Health"} <= names
    call.cancel()


async def test_identity_is_checked_on_every_call(host):
    ready = await host.load("bravo")

    mismatch = await refusal(
        host.stub.Generate(chat(model="endless", instance_id=ready.instance_id))
    )
    gone = await refusal(host.stub.Generate(chat(model="bravo", instance_id="bravo-0")))
    unknown = await refusal(host.stub.Generate(chat(model="endless")))
    counted = await refusal(
        host.stub.CountTokens(
            neuron.CountTokensRequest(model="endless", instance_id=ready.instance_id, text="x")
        )
    )

    assert mismatch.reason is Reason.INSTANCE_MISMATCH
    assert gone.reason is Reason.INSTANCE_GONE
    assert unknown.reason is Reason.MODEL_UNKNOWN
    assert counted.reason is Reason.INSTANCE_MISMATCH


async def test_a_load_that_everybody_left_is_abandoned(host):
    call = host.stub.Load(neuron.LoadRequest(spec=model.LoadSpec(model="bravo")))
    await call.read()

    call.cancel()

    await host.until(lambda status: not status.report.instances)
    assert (await host.load("bravo")).state == model.INSTANCE_STATE_READY


async def test_a_detached_load_goes_on_without_its_caller(host):
    call = host.stub.Load(neuron.LoadRequest(spec=model.LoadSpec(model="bravo"), detach=True))
    await call.read()

    call.cancel()

    def is_ready(status: neuron.NeuronStatus) -> bool:
        return any(one.state == model.INSTANCE_STATE_READY for one in status.report.instances)

    await host.until(is_ready)


async def test_metrics_have_buckets_and_gauges(host):
    await host.load("bravo")
    async for _ in host.stub.Generate(chat(model="bravo")):
        pass

    families = {family.name: family for family in host.served.metrics.collect()}

    first_token = families["cortex_neuron_time_to_first_token_seconds"]
    assert first_token.type == "histogram"
    assert any(sample.name.endswith("_bucket") for sample in first_token.samples)
    tokens = families["cortex_neuron_completion_tokens"].samples[0]
    assert (tokens.labels, tokens.value) == ({"model": "bravo"}, 4)
    assert "cortex_neuron_active_requests" in families


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
