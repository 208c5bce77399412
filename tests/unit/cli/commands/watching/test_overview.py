import io

import pytest
from rich.console import Console

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import registry_service_pb2 as reg
from services.cli.commands.watching.overview import GatewayRates, overview, rates_of

GIB = 1 << 30


def text_of(fleet: op.GetFleetResponse, rates: GatewayRates) -> str:
    console = Console(file=io.StringIO(), width=200, markup=False)
    for part in overview(fleet, rates):
        console.print(part)
    written = console.file
    assert isinstance(written, io.StringIO)
    return written.getvalue()


def a_fleet() -> op.GetFleetResponse:
    instance = model.Instance(
        instance_id="i1",
        spec=model.LoadSpec(model="alpha"),
        state=model.INSTANCE_STATE_READY,
        active_requests=3,
        max_active_requests=8,
        queued_requests=2,
        max_queued_requests=64,
        cache_tokens_used=50,
        cache_tokens_total=200,
        engine="llamacpp",
    )
    device = model.Device(
        device_id="gpu0",
        name="A card",
        memory_total_bytes=8 * GIB,
        memory_free_bytes=2 * GIB,
        utilization_ratio=0.5,
        temperature_celsius=61.0,
        power_watts=287.4,
    )
    report = neuron.NeuronReport(sequence=1, devices=[device], instances=[instance])
    identity = neuron.NeuronIdentity(name="beast")
    return op.GetFleetResponse(
        neurons=[reg.Neuron(identity=identity, report=report)],
        pending=[op.PendingPlacement(model="beta", waiters=4)],
    )


def test_it_shows_requests_rates_devices_models_and_what_waits():
    rates = rates_of(
        {
            "rates": {
                "tokens_per_second": 41.5,
                "requests_open": 6,
                "streams_open": 5,
                "first_token_ms": {"p50": 120.4, "p95": 800.0},
                "instances": {"i1": {"tokens_per_second": 40.5, "cached_share": None}},
                "something": "newer",
            }
        }
    )

    shown = text_of(a_fleet(), rates)

    assert "3 active, 2 queued, 4 wait for a model" in shown
    assert "6 requests, 5 streams, 41.5 tokens/s, first token 120 ms (95 %: 800)" in shown
    for words in ("beast", "A card", "6.0 GiB / 8.0 GiB", "50%", "61", "287", "█" * 15 + "░" * 5):
        assert words in shown
    for words in ("alpha", "READY", "3/8", "2/64", "40.5", "25%", "llamacpp", "beta", "4"):
        assert words in shown


@pytest.mark.parametrize("snapshot", [None, {}, {"rates": None}, {"rates": {"requests_open": "a"}}])
def test_a_gateway_that_tells_no_rates_is_said_and_the_fleet_shown(snapshot):
    shown = text_of(a_fleet(), rates_of(snapshot))

    assert "gateway: the gateway is of another version" in shown
    assert "alpha" in shown


def test_nothing_that_others_say_does_something_to_the_terminal():
    fleet = a_fleet()
    fleet.neurons[0].report.instances[0].spec.model = "a\x1b[2J"
    fleet.neurons[0].report.devices[0].name = "b\x1b[2J"

    shown = text_of(fleet, GatewayRates(problem="c\x1b[2J"))

    assert "\x1b[2J" not in shown
    assert "a\\x1b[2J" in shown


def test_an_empty_fleet_is_shown():
    assert "0 active" in text_of(op.GetFleetResponse(), GatewayRates())
