"""Messages changed by chance, and bytes that are none, at every method of registry and neuron."""

import importlib
import pathlib
import pkgutil

import grpc
import pytest
from google.protobuf import text_format
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

import cortex.v1
from cortex.v1 import generation_pb2 as generation
from cortex.v1 import join_service_pb2 as join
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc as op_grpc
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.security.join_token import JoinToken
from services.backplane.security.key_files import new_key, request_for
from tests.system.fuzz.conftest import running
from tests.system.fuzz.joining import HOST, guarded
from tests.system.fuzz.mutation import mutate_message, mutated_bytes, smaller
from tests.system.fuzz.search import search

GOLDEN = pathlib.Path(__file__).parents[2] / "contract" / "golden"
# Every service of the contract, whichever file it stands in, and those that come with gRPC.
FILES = [
    importlib.import_module(f"cortex.v1.{module.name}")
    for module in pkgutil.iter_modules(cortex.v1.__path__)
    if module.name.endswith("_pb2")
]
METHODS = [
    method
    for file in (*FILES, health_pb2, reflection_pb2)
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
    HOST,
)
TOKENS = 40
# What a host asks with; tokens and requests for certificates, made as the fleet starts.
JOINS: list[join.JoinRequest] = []
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
    changes = random.choice((1, 2, 4, 8))
    if method.name in JOINING and random.random() < 0.8:
        changes = random.choice((0, 0, 1, 2))
        _ask_to_join(random, message)
    for _ in range(changes):
        mutate_message(random, message, TEXTS)
    if method.name == "RevokeNeuron" and message.neuron == "local":
        message.neuron = HOST  # the fleet's only one: nobody would be let in behind it
    data = message.SerializeToString()
    if random.random() < 0.15:
        return mutated_bytes(random, data)
    return random.randbytes(random.choice((1, 9, 99))) if random.random() < 0.05 else data


JOINING = {"Join", "RenewCertificate", "ApproveNeuron"}


def _ask_to_join(random, message):
    """A host, a neuron or an operator does what it should, or nearly."""
    seed = random.choice(JOINS)
    if isinstance(message, join.JoinRequest):
        message.CopyFrom(seed)
    elif isinstance(message, registry.RenewCertificateRequest):
        message.certificate_request = seed.certificate_request
    else:
        message.neuron = HOST
        return
    if random.random() < 0.5:
        message.certificate_request = mutated_bytes(random, message.certificate_request)


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    return guarded(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory, door):
    with running(tmp_path_factory.mktemp("fuzzed"), "--config", str(door.settings)) as fleet:
        yield fleet


class Channels:
    """Which port serves a method, and with which certificate it is asked."""

    def __init__(self, registry, neuron, renewing, joining):
        self.registry = registry
        self.neuron = neuron
        self._renewing = renewing
        self._joining = joining

    def of(self, method):
        if method.name == "RenewCertificate":  # only of those that are a neuron and nothing else
            return self._renewing
        by_service = {
            "NeuronService": self.neuron,
            "StorageService": self.neuron,
            "JoinService": self._joining,
        }
        return by_service.get(method.containing_service.name, self.registry)


@pytest.fixture
def channels(fleet, door):
    with door.channel(fleet.registry, "all") as to_registry:
        stub = op_grpc.OperatorServiceStub(to_registry)
        members = stub.GetFleet(op.GetFleetRequest(), timeout=ANSWER_SECONDS).neurons
        JOINS[:] = [_new_host(stub) for _ in range(TOKENS)]
        with (
            door.channel(members[0].identity.address, "all") as to_neuron,
            door.channel(fleet.registry, "neuron") as as_neuron,
            door.channel(door.door) as as_stranger,
        ):
            yield Channels(to_registry, to_neuron, as_neuron, as_stranger)


def _new_host(stub):
    wanted = op.CreateJoinTokenRequest(neuron=HOST)
    wanted.lifetime.FromSeconds(86_400)
    made = stub.CreateJoinToken(wanted, timeout=ANSWER_SECONDS)
    secret = JoinToken.parse(made.token).secret
    return join.JoinRequest(secret=secret, certificate_request=request_for(new_key()), neuron=HOST)


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
        channel = self._channels.of(method)
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


def test_all_that_is_served_is_in_the_contract(channels):
    """So that no service is added, and left out here."""
    served = {
        name
        for channel in (channels.registry, channels.neuron)
        for name in ProtoReflectionDescriptorDatabase(channel).get_services()
    }

    assert {name for name in served if name.startswith("cortex.")} < {
        method.containing_service.full_name for method in METHODS
    }


def test_every_method_is_served_where_it_is_called(channels, watch):
    client = Client(channels, watch)

    answers = {method.full_name: client.call(method, [b""]) for method in METHODS}

    join_code, join_words = answers.pop("cortex.v1.JoinService.Join")
    assert (join_code, "token" in join_words) == (grpc.StatusCode.PERMISSION_DENIED, True)
    unserved = {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED}
    assert not {name: told for name, told in answers.items() if told[0] in unserved}


def test_hosts_that_ask_as_they_should_wait_for_approval_and_join(channels):
    """So that what is changed by chance is worth changing."""
    by_name = {method.name: method for method in METHODS}
    asked = JOINS[0]

    def joined():
        answer = channels.of(by_name["Join"]).unary_unary("/cortex.v1.JoinService/Join")(
            asked.SerializeToString(), timeout=ANSWER_SECONDS
        )
        return join.JoinResponse.FromString(answer)

    assert not joined().certificate
    op_grpc.OperatorServiceStub(channels.registry).ApproveNeuron(
        op.ApproveNeuronRequest(neuron=HOST), timeout=ANSWER_SECONDS
    )
    assert joined().certificate


def test_no_message_ends_a_call_by_a_bug(channels, watch):
    client = Client(channels, watch)

    search(make, client.problem, simpler)

    watch.check_memory()
    for name in ("GetFleet", "GetStatus"):
        method = next(one for one in METHODS if one.name == name)
        assert client.call(method, [b""])[0] == grpc.StatusCode.OK
