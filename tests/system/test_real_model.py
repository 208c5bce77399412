"""The real SmolLM2 through the whole fleet: equal to its engine, cancelled, safe from faults."""

import http.client
import json
import os
import signal
import socket
import threading
import time
import urllib.parse

import grpc
import openai
import psutil
import pytest

from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import neuron_service_pb2_grpc as neuron_grpc
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc as op_grpc
from services.neuron.engine_api.model import LoadPlan
from services.neuron.engine_api.task import Prompt, SamplingParams, Segment, StopParams, Task
from tests.system.local_fleet import until

pytestmark = pytest.mark.real

MODEL = "smollm2-135m"
ENDLESS = {"ignore_eos": True, "max_tokens": 400, "temperature": 0.8}


@pytest.fixture
def client(real_fleet):
    with openai.OpenAI(base_url=f"{real_fleet.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def get_fleet(real_fleet):
    with grpc.insecure_channel(real_fleet.registry) as channel:
        return op_grpc.OperatorServiceStub(channel).GetFleet(op.GetFleetRequest(), timeout=10)


def neuron_address(real_fleet):
    return get_fleet(real_fleet).neurons[0].identity.address


def instance(real_fleet):
    """The model's instance as the neuron itself reports it."""
    with grpc.insecure_channel(neuron_address(real_fleet)) as channel:
        stub = neuron_grpc.NeuronServiceStub(channel)
        status = stub.GetStatus(neuron.GetStatusRequest(), timeout=10).status
    return next(each for each in status.report.instances if each.spec.model == MODEL)


def start_stream(real_fleet, text="Tell me a long story."):
    """A raw streaming request whose socket the test owns."""
    where = urllib.parse.urlsplit(real_fleet.url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": text}]}
    connection.request("POST", "/v1/chat/completions", json.dumps({**body, **ENDLESS}))
    return connection, connection.getresponse()


def read_until_text(response):
    for line in response:
        if b'"content":"' in line and b'"content":""' not in line:
            return
    raise AssertionError("the stream ended without text")


def test_greedy_output_equals_the_engines_own(real_fleet, client):
    """The same prompt, rendered by hand, in an engine of the test's own."""
    from services.neuron.engines.llamacpp import create_engine

    question = "Name three colours of the rainbow."
    whole = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": question},
        ],
        temperature=0,
        max_tokens=48,
        logprobs=True,
    )
    path = next(real_fleet.data_dir.rglob("*.gguf"))
    loading = create_engine().load(LoadPlan("own", "llamacpp", str(path), max_sequences=1))
    while True:
        try:
            next(loading)
        except StopIteration as stop:
            model = stop.value
            break
    prompt = Prompt(
        tuple(
            Segment(text, control)
            for text, control in (
                ("<|im_start|>", True),
                ("system\nBe brief.", False),
                ("<|im_end|>", True),
                ("\n", False),
                ("<|im_start|>", True),
                (f"user\n{question}", False),
                ("<|im_end|>", True),
                ("\n", False),
                ("<|im_start|>", True),
                ("assistant\n", False),
            )
        )
    )
    task = Task(
        1, "own", prompt, sampling=SamplingParams(temperature=0), stop=StopParams(max_tokens=48)
    )
    model.submit(task, model.tokenize(prompt))
    text = ""
    while model.has_work:
        text += "".join(event.text for event in model.step() if hasattr(event, "text"))
    model.close()

    assert text == whole.choices[0].message.content


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_client_that_leaves_frees_its_slot(real_fleet, stream):
    where = urllib.parse.urlsplit(real_fleet.url)
    if stream:
        connection, response = start_stream(real_fleet)
        read_until_text(response)
        assert instance(real_fleet).active_requests == 1
        response.close()
        connection.close()
    else:
        body = json.dumps(
            {"model": MODEL, "messages": [{"role": "user", "content": "Go on."}], **ENDLESS}
        )
        raw = socket.create_connection((where.hostname, where.port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        raw.sendall((head + body).encode())
        until(lambda: instance(real_fleet).active_requests == 1)
        raw.close()

    until(lambda: instance(real_fleet).active_requests == 0, 5)


def test_a_killed_worker_costs_a_pause_or_an_error_frame(real_fleet, client):
    connection, response = start_stream(real_fleet)
    read_until_text(response)

    os.kill(real_fleet.workers()[0].pid, signal.SIGKILL)

    rest = response.read().decode()
    connection.close()
    events = [json.loads(line[6:]) for line in rest.splitlines() if line.startswith("data: {")]
    failed = [event for event in events if "error" in event]
    finished = [
        choice["finish_reason"]
        for event in events
        for choice in event.get("choices", [])
        if choice.get("finish_reason")
    ]
    assert len(failed) + len(finished) == 1
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=5
    )
    assert answer.choices[0].message.content


def test_a_killed_registry_disturbs_no_loaded_model(real_fleet, client):
    before = instance(real_fleet).instance_id
    connection, response = start_stream(real_fleet)
    read_until_text(response)

    killed = real_fleet.child("registry")
    os.kill(killed.pid, signal.SIGKILL)

    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=5
    )
    assert answer.choices[0].message.content
    read_until_text(response)
    connection.close()

    def back():
        try:
            neurons = get_fleet(real_fleet).neurons
        except grpc.RpcError:
            return False
        return bool(neurons) and not neurons[0].lost

    until(back, 30)
    assert instance(real_fleet).instance_id == before


def test_thirty_two_real_streams_all_finish(client):
    texts = []

    def one(number):
        stream = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": f"Count to {number}."}],
            max_tokens=12,
            stream=True,
        )
        texts.append("".join(c.choices[0].delta.content or "" for c in stream if c.choices))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)

    assert len(texts) == 32
    assert all(texts)


def test_metrics_tell_tokens_latency_and_first_token(real_fleet, client):
    client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=5
    )
    where = urllib.parse.urlsplit(real_fleet.metrics_url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=10)
    connection.request("GET", "/metrics")
    page = connection.getresponse().read().decode()
    connection.close()

    for name in (
        "requests_total",
        "first_token_seconds_bucket",
        "tokens_total",
        "cold_starts_total",
    ):
        assert f"{name}" in page, name
    assert MODEL in page


def test_ctrl_c_ends_everything(tmp_path):
    from tests.system import local_fleet as running

    fleet = running.start(tmp_path, environment={})
    pids = [fleet.child(name).pid for name in ("registry", "neuron", "gateway")]
    pids += [worker.pid for worker in fleet.workers()]
    started = time.monotonic()

    code = fleet.end()

    assert code == 0
    assert time.monotonic() - started < 30
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
