"""Messages changed by chance, and bytes that are none, at every method of registry and neuron."""

import pathlib

import grpc
import pytest
from google.protobuf import text_format
from google.protobuf.message_factory import GetMessageClass

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc as op_grpc
from cortex.v1 import registry_service_pb2 as registry
from tests.system.fuzz.mutation import mutate_message, mutated_bytes, smaller
from tests.system.fuzz.search import search

GOLDEN = pathlib.Path(__file__).parents[2] / "contract" / "golden"
METHODS = [
    method
    for file in (neuron, registry, op)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
GENERATIONS = [
    text_format.Parse(text, generation.GenerateRequest())
    for path in sorted(GOLDEN.glob("*/*.textproto"))
    for text in path.read_text().split("---\n")
]
# An address that is nobody's, a load that finds nothing: what is sent reaches no other machine.
TEXTS = (
    "alpha",
    "local",
    "r1",
    "localhost:1",
    '{"type": "object"}',
    "path:/nowhere.gguf",
    "nobody",
)
ANSWER_SECONDS = 10.0
# A stream that goes on for longer is left: watches and memberships have no end.
STREAM_SECONDS = 0.3
FAILURES = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}


def make(random):
    """(index of a method, the bytes of the messages sent)."""
    index = random.randrange(len(METHODS))
    count = random.choice((1, 1, 2, 3)) if METHODS[index].client_streaming else 1
    return index, [_message(random, METHODS[index]) for _ in range(count)]


def simpler(made):
    return ((made[0], less) for less in smaller(made[1]) if less)


def _message(random, method):
    message = GetMessageClass(method.input_type)()
    if method.name in {"Generate", "CountTokens", "Session"} and random.random() < 0.7:
        seed = random.choice(GENERATIONS)
        if method.name == "Generate":
            message.CopyFrom(seed)
            message.instance_id = ""
            message.model = "alpha"
        elif method.name == "Session":
            start = message.starts.add(sequence_id=1, credit_tokens=9)
            start.request.CopyFrom(seed)
        elif "chat" in message.DESCRIPTOR.fields_by_name:
            message.chat.CopyFrom(seed.chat)
    for _ in range(random.choice((1, 2, 4, 8))):
        mutate_message(random, message, TEXTS)
    data = message.SerializeToString()
    if random.random() < 0.15:
        return mutated_bytes(random, data)
    return random.randbytes(random.choice((1, 9, 99))) if random.random() < 0.05 else data


@pytest.fixture
def channels(fleet):
    with grpc.insecure_channel(fleet.registry) as to_registry:
        stub = op_grpc.OperatorServiceStub(to_registry)
        members = stub.GetFleet(op.GetFleetRequest(), timeout=ANSWER_SECONDS).neurons
        with grpc.insecure_channel(members[0].identity.address) as to_neuron:
            yield {"NeuronService": to_neuron, "RegistryService": to_registry} | {
                "OperatorService": to_registry
            }


class Client:
    """Sends messages, and says what is wrong with how a call ended."""

    def __init__(self, channels, watch):
        self._channels = channels
        self._watch = watch
        self._sent = 0

    def problem(self, made):
        self._sent += 1
        if self._sent == 200:
            self._watch.settle()
        method = METHODS[made[0]]
        code, words = self.call(method, made[1])
        if code in FAILURES or (
            code == grpc.StatusCode.DEADLINE_EXCEEDED and not method.server_streaming
        ):
            return f"{method.full_name}: {code.name} {words} {self._watch.traceback()}"
        return self._watch.traceback()

    def call(self, method, messages):
        """The status of a call, by its code and its words."""
        channel = self._channels[method.containing_service.name]
        path = f"/{method.containing_service.full_name}/{method.name}"
        try:
            if method.client_streaming:
                list(channel.stream_stream(path)(iter(messages), timeout=STREAM_SECONDS))
            elif method.server_streaming:
                list(channel.unary_stream(path)(messages[0], timeout=STREAM_SECONDS))
            else:
                channel.unary_unary(path)(messages[0], timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            return error.code(), error.details()
        return grpc.StatusCode.OK, ""


def test_no_message_ends_a_call_by_a_bug(channels, watch):
    client = Client(channels, watch)

    search(make, client.problem, simpler)

    watch.check_memory()
    for name in ("GetFleet", "GetStatus"):
        method = next(one for one in METHODS if one.name == name)
        assert client.call(method, [b""])[0] == grpc.StatusCode.OK
