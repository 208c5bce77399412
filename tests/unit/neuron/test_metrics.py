"""What the page tells of devices: no figure is nought because nobody knows it."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, generate_latest

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.neuron.metrics import StatusCollector


def page(*devices: model.Device, energy: Mapping[str, float]) -> CollectorRegistry:
    registry = CollectorRegistry()
    report = neuron.NeuronReport(devices=devices)
    registry.register(StatusCollector(lambda: report, lambda: energy))
    return registry


def test_power_and_energy_are_told_with_their_source():
    registry = page(
        model.Device(device_id="GPU-0", power_watts=287.5, energy_joules=5000),
        model.Device(device_id="GPU-1", power_watts=90, energy_joules=40.5, energy_estimated=True),
        energy={"large": 12.5},
    )

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"cortex_neuron_{name}", labels)

    assert value("device_power_watts", device="GPU-0") == 287.5
    measured = {"device": "GPU-0", "source": "measured"}
    assert value("device_energy_joules_total", **measured) == 5000
    estimated = {"device": "GPU-1", "source": "estimated"}
    assert value("device_energy_joules_total", **estimated) == 40.5
    assert value("request_energy_joules_total", model="large") == 12.5


def test_a_device_that_does_not_say_has_no_series():
    registry = page(model.Device(device_id="cpu", memory_total_bytes=1), energy={})

    told = generate_latest(registry).decode()

    assert 'device_memory_total_bytes{device="cpu"}' in told
    assert "watts{" not in told
    assert "joules_total{" not in told
