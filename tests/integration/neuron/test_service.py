"""NeuronService over real gRPC: status, health, reflection, metrics, who is meant."""

from __future__ import annotations

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import Reason
from tests.doubles.neuron_host import NeuronHost, chat, refusal, running_neuron


async def health(host: NeuronHost, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(host.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
    return int(answer.status)


async def test_status_lists_disk_devices_and_identity(host):
    # This neuron was started with an empty folder.
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


async def test_another_sampling_is_for_the_requests_that_come_and_the_rest_goes_on(host):
    await host.load("bravo")
    (before,) = (await host.status()).report.instances
    running = host.stub.Generate(chat(model="bravo", stop={"max_tokens": 400}))
    events = aiter(running)
    await anext(events)

    update = neuron.UpdateInstanceRequest(
        instance_id=before.instance_id, default_sampling=generation.Sampling(top_k=7)
    )
    answer = await host.stub.UpdateInstance(update)

    assert answer.instance.instance_id == before.instance_id
    assert answer.instance.spec.default_sampling.top_k == 7
    told = [event async for event in events]
    assert told[-1].HasField("finished")
    (after,) = (await host.status()).report.instances
    assert after.spec.default_sampling.top_k == 7
    assert after.loaded_at == before.loaded_at
    unknown = neuron.UpdateInstanceRequest(instance_id="nobody")
    assert (await refusal(host.stub.UpdateInstance(unknown))).reason is Reason.INSTANCE_GONE
