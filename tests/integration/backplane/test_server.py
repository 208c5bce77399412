import asyncio
import urllib.error
import urllib.request

import grpc
import pytest
import structlog
from google.protobuf import descriptor_database, descriptor_pb2, descriptor_pool
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc as op_grpc
from cortex.v1 import registry_service_pb2 as registry_pb2
from cortex.v1 import registry_service_pb2_grpc as registry_grpc
from services.backplane import metrics as prometheus
from services.backplane.address import Address, PortTakenError
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.calls import streaming, unary
from services.backplane.rpc.channels import ChannelPool, open_channel
from services.backplane.rpc.server import Server
from services.backplane.rpc.status import from_rpc_error

NAME = "cortex.v1.OperatorService"
LOOPBACK = Address("127.0.0.1", 0)


class Operator(op_grpc.OperatorServiceServicer):
    """Fails in every way that a servicer can."""

    def __init__(self):
        self.ended = asyncio.Event()

    async def GetFleet(self, request, context):
        raise FleetError(
            Reason.NO_ROOM, "full", field="model", retry_after_seconds=2.5, facts={"a": "b"}
        )

    async def ListModels(self, request, context):
        raise ZeroDivisionError("secret")

    async def UnpinModel(self, request, context):
        raise FleetError(
            Reason.MODEL_UNKNOWN,
            f"The model {request.model!r} does not exist.",
            field="model",
            facts={"model": request.model},
        )

    async def CordonNeuron(self, request, context):
        status = status_pb2.Status(code=5, message="not what the call says")
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        await context.abort(grpc.StatusCode.NOT_FOUND, "what the call says")

    async def PinModel(self, request, context):
        return op.PinModelResponse()

    async def DrainNeuron(self, request, context):
        try:
            for left in range(10**9):
                if request.neuron == "gone" and left == 2:
                    raise FleetError(Reason.NEURON_LOST, "gone")
                yield op.DrainNeuronResponse(instances_left=left)
                await asyncio.sleep(0)
        finally:
            self.ended.set()


@pytest.fixture
def registry():
    return prometheus.new_registry("test")


@pytest.fixture
async def served(registry):
    server = Server(service_names=[NAME], metrics=prometheus.RpcMetrics(registry, "test"))
    operator = Operator()
    server.add(op_grpc.add_OperatorServiceServicer_to_server, operator)
    address = await server.start(LOOPBACK)
    channel = open_channel(address)
    yield server, operator, channel, address
    await channel.close()
    await server.stop(0)


@pytest.mark.parametrize("name", ["x" * 30_000, "é😀" * 5_000], ids=["ASCII", "other"])
async def test_an_error_with_very_long_words_keeps_its_reason(served, name):
    """Statuses travel in trailers, which gRPC drops beyond 8 KiB, with another code instead."""
    _, _, channel, _ = served

    with pytest.raises(FleetError) as caught:
        await unary(
            op_grpc.OperatorServiceStub(channel).UnpinModel(op.UnpinModelRequest(model=name))
        )

    assert caught.value.reason is Reason.MODEL_UNKNOWN
    assert caught.value.field == "model"
    assert caught.value.message.startswith("The model ")
    assert "…" in caught.value.message


async def test_a_status_whose_details_do_not_fit_it_is_read_by_its_code(served):
    """Somebody on the way has reworded it; that is no reason to crash."""
    _, _, channel, _ = served

    with pytest.raises(FleetError) as caught:
        await unary(op_grpc.OperatorServiceStub(channel).CordonNeuron(op.CordonNeuronRequest()))

    assert caught.value.reason is Reason.NOT_FOUND
    assert caught.value.message == "what the call says"


async def test_a_fleet_error_arrives_whole(served):
    _, _, channel, _ = served

    with pytest.raises(FleetError) as caught:
        await unary(op_grpc.OperatorServiceStub(channel).GetFleet(op.GetFleetRequest()))

    error = caught.value
    assert (Reason.NO_ROOM, "full", "model", 2.5, {"a": "b"}) == (
        error.reason,
        error.message,
        error.field,
        error.retry_after_seconds,
        error.facts,
    )


async def test_a_crash_is_internal_and_tells_nothing(served):
    _, _, channel, _ = served

    with pytest.raises(FleetError) as caught:
        await unary(op_grpc.OperatorServiceStub(channel).ListModels(op.ListModelsRequest()))

    assert Reason.INTERNAL is caught.value.reason
    assert "secret" not in caught.value.message


async def test_a_stream_that_fails_keeps_what_it_sent(served):
    _, _, channel, _ = served
    call = op_grpc.OperatorServiceStub(channel).DrainNeuron(op.DrainNeuronRequest(neuron="gone"))
    got = []

    with pytest.raises(FleetError, match="gone"):
        async with streaming(call) as responses:
            got = [response.instances_left async for response in responses]

    assert [] == got or [0, 1] == got


async def test_leaving_a_stream_early_ends_it_on_the_other_side(served):
    _, operator, channel, _ = served
    call = op_grpc.OperatorServiceStub(channel).DrainNeuron(op.DrainNeuronRequest(neuron="x"))

    async with streaming(call) as responses:
        async for _ in responses:
            break

    await asyncio.wait_for(operator.ended.wait(), 60)


async def test_a_dead_address_has_the_reason_that_the_caller_chose():
    pool = ChannelPool()
    stub = op_grpc.OperatorServiceStub(pool.get("127.0.0.1:1"))

    with pytest.raises(FleetError) as caught:
        await unary(stub.GetFleet(op.GetFleetRequest()), unavailable=Reason.REGISTRY_UNAVAILABLE)

    assert Reason.REGISTRY_UNAVAILABLE is caught.value.reason
    await pool.close()


async def test_the_pool_has_one_channel_per_address():
    pool = ChannelPool()

    assert pool.get("127.0.0.1:1") is pool.get("127.0.0.1:1")

    await pool.discard("127.0.0.1:1")
    await pool.discard("unknown:1")
    await pool.close()


async def test_health_knows_services_and_names_set_later(served):
    server, _, channel, _ = served
    stub = health_pb2_grpc.HealthStub(channel)

    async def check(name):
        return (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status

    assert health_pb2.HealthCheckResponse.SERVING == await check("")
    assert health_pb2.HealthCheckResponse.SERVING == await check(NAME)
    await server.set_health("model/m", serving=False)
    assert health_pb2.HealthCheckResponse.NOT_SERVING == await check("model/m")
    listed = (await stub.List(health_pb2.HealthListRequest())).statuses
    assert {"", NAME, "model/m"} == set(listed)
    await server.set_health("model/m", serving=None)
    for name in ("model/m", "model/unknown"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(name)
        assert grpc.StatusCode.NOT_FOUND is caught.value.code()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_the_services(served, version):
    _, _, channel, _ = served
    method = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = method()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))

    answer = await call.read()

    call.cancel()
    names = {service.name for service in answer.list_services_response.service}
    assert {NAME, "grpc.health.v1.Health"} <= names


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_describes_itself(served, version):
    """`grpcurl describe` asks for every service that is listed."""
    _, _, channel, _ = served
    name = f"grpc.reflection.{version}.ServerReflection"
    method = channel.stream_stream(
        f"/{name}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = method()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = [each.name for each in (await call.read()).list_services_response.service]
    found = {}

    for each in listed:
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=each))
        answer = await call.read()
        known = descriptor_database.DescriptorDatabase()
        for data in answer.file_descriptor_response.file_descriptor_proto:
            known.Add(descriptor_pb2.FileDescriptorProto.FromString(data))
        found[each] = descriptor_pool.DescriptorPool(known).FindServiceByName(each)
    call.cancel()

    assert {"grpc.reflection.v1.ServerReflection", NAME} <= set(found)
    v1 = found["grpc.reflection.v1.ServerReflection"]
    (info,) = v1.methods
    assert info.input_type.full_name == "grpc.reflection.v1.ServerReflectionRequest"
    assert v1.file.name == "grpc/reflection/v1/reflection.proto"


@pytest.mark.parametrize(
    "method",
    [
        f"{NAME}/GetFleet",
        f"{NAME}/DrainNeuron",
        "grpc.health.v1.Health/Check",
        "grpc.health.v1.Health/Watch",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
async def test_bytes_that_are_no_message_are_an_invalid_argument(served, method):
    _, _, channel, _ = served
    call = channel.stream_stream(f"/{method}")(iter([b"\x0a\xff"]))

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc_error(caught.value).reason is Reason.BAD_REQUEST
    assert f"no request of /{method}" in (caught.value.details() or "")


async def test_the_lines_of_a_call_carry_the_id_in_its_request(registry):
    class Servicer(registry_grpc.RegistryServiceServicer):
        async def EnsureModel(self, request, context):
            yield registry_pb2.EnsureModelResponse()

    server = Server(service_names=[], metrics=prometheus.RpcMetrics(registry, "other"))
    server.add(registry_grpc.add_RegistryServiceServicer_to_server, Servicer())
    channel = open_channel(await server.start(LOOPBACK))
    stub = registry_grpc.RegistryServiceStub(channel)

    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        async for _ in stub.EnsureModel(registry_pb2.EnsureModelRequest(request_id="req-1")):
            pass
        await channel.close()
        await server.stop(1)

    assert [line["request_id"] for line in lines if line["event"] == "rpc.served"] == ["req-1"]


async def test_a_taken_port_is_a_clear_error(served, registry):
    _, _, _, address = served
    second = Server(service_names=[], metrics=prometheus.RpcMetrics(registry, "second"))

    with pytest.raises(PortTakenError, match=f"cannot listen on {address}: .*in use"):
        await second.start(address)

    await second.stop(0)


async def test_rpcs_are_counted_and_exposed(served, registry):
    _, _, channel, _ = served
    stub = op_grpc.OperatorServiceStub(channel)
    await stub.PinModel(op.PinModelRequest(model="m"))

    async with prometheus.exposition(registry, LOOPBACK) as port:
        page = await asyncio.to_thread(_fetch, f"http://127.0.0.1:{port}/metrics")

    method = "/cortex.v1.OperatorService/PinModel"
    assert f'cortex_test_rpcs_total{{code="OK",method="{method}"}} 1.0' in page
    assert f'cortex_test_rpc_seconds_bucket{{le="0.005",method="{method}"}}' in page
    assert 'cortex_build_info{service="test"' in page


async def test_other_pages_stand_beside_the_metrics(registry):
    told = {"/one": lambda: b"[1]", "/none": lambda: None}

    async with prometheus.exposition(registry, LOOPBACK, told) as port:
        url = f"http://127.0.0.1:{port}"
        page = await asyncio.to_thread(_fetch, f"{url}/one")
        metrics = await asyncio.to_thread(_fetch, f"{url}/metrics")
        with pytest.raises(urllib.error.HTTPError) as refused:
            await asyncio.to_thread(_fetch, f"{url}/none")
        refused.value.close()

    assert ("[1]", 503) == (page, refused.value.code)
    assert "cortex_build_info" in metrics


def _fetch(url):
    with urllib.request.urlopen(url, timeout=60) as response:
        return response.read().decode()
