"""Loads and unloads over real gRPC with a real worker."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf import duration_pb2

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import Reason
from services.backplane.rpc.status import from_rpc_error
from tests.doubles.neuron_host import chat, refusal, running_neuron


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
