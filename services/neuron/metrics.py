"""What the neuron counts and shows to Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.metrics import LATENCY_BUCKETS, RATE_BUCKETS


class NeuronMetrics:
    """Counters and histograms, by model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"cortex_neuron_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(
                f"cortex_neuron_{name}", text, ["model"], buckets=buckets, registry=registry
            )

        self.generations = counter(
            "generations_total", "Generations that have ended.", "model", "outcome"
        )
        self.prompt_tokens = counter("prompt_tokens_total", "Prompt tokens.", "model")
        self.cached_tokens = counter(
            "cached_prompt_tokens_total", "Prompt tokens that were reused.", "model"
        )
        self.completion_tokens = counter("completion_tokens_total", "Tokens made.", "model")
        self.resumed = counter(
            "resumed_generations_total", "Generations that outlived their worker.", "model"
        )
        self.loads = counter("loads_total", "Loads that have ended.", "model", "outcome")
        self.worker_deaths = counter("worker_deaths_total", "Workers that died.", "engine")
        self.first_token = histogram(
            "time_to_first_token_seconds", "From admission to the first token.", LATENCY_BUCKETS
        )
        self.queued = histogram("queued_seconds", "Time in the queue.", LATENCY_BUCKETS)
        self.prefill = histogram("prefill_seconds", "Time to read a prompt.", LATENCY_BUCKETS)
        self.rate = histogram(
            "tokens_per_second", "Decoding speed of one generation.", RATE_BUCKETS
        )
        self.load_seconds = histogram("load_seconds", "Time of a load.", LATENCY_BUCKETS)

    def note_load(self, name: str, outcome: str, seconds: float) -> None:
        """Counts a load that has ended: `ready`, `failed` or `abandoned`."""
        self.loads.labels(name, outcome).inc()
        if outcome == "ready":
            self.load_seconds.labels(name).observe(seconds)


class StatusCollector(Collector):
    """What is read from the neuron's report at every scrape.

    Args:
        report: makes it.
        energy: joules that requests have used, by model.
    """

    def __init__(
        self,
        report: Callable[[], neuron.NeuronReport],
        energy: Callable[[], Mapping[str, float]],
    ) -> None:
        self._report = report
        self._energy = energy

    @override
    def collect(self) -> Iterable[Metric]:
        """The gauges of devices and instances; Prometheus calls it from a thread of its own."""
        report = self._report()
        yield from _instances(report.instances)
        yield from _devices(report.devices)
        yield from _power(report.devices)
        yield _request_energy(self._energy())


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"cortex_neuron_{name}", text, labels=labels)


def _instances(instances: Iterable[model.Instance]) -> Iterable[Metric]:
    active = _gauge("active_requests", "Requests being decoded.", "model")
    queued = _gauge("queued_requests", "Requests that wait for a place.", "model")
    used = _gauge("cache_usage_ratio", "Share of the cache in use.", "model")
    state = _gauge("instance_state", "1 for the state that an instance is in.", "model", "state")
    for instance in instances:
        name = instance.spec.model
        active.add_metric([name], instance.active_requests)
        queued.add_metric([name], instance.queued_requests)
        if instance.cache_tokens_total:
            used.add_metric([name], instance.cache_tokens_used / instance.cache_tokens_total)
        word = model.InstanceState.Name(instance.state).removeprefix("INSTANCE_STATE_").lower()
        state.add_metric([name, word], 1)
    return (active, queued, used, state)


def _devices(devices: Iterable[model.Device]) -> Iterable[Metric]:
    total = _gauge("device_memory_total_bytes", "Memory of a device.", "device")
    free = _gauge("device_memory_free_bytes", "Free memory of a device.", "device")
    busy = _gauge("device_utilization_ratio", "How busy a device is.", "device")
    heat = _gauge("device_temperature_celsius", "Temperature of a device.", "device")
    quarantined = _gauge(
        "device_quarantined", "1 while a device takes no work, after deaths of workers.", "device"
    )
    for device in devices:
        total.add_metric([device.device_id], device.memory_total_bytes)
        free.add_metric([device.device_id], device.memory_free_bytes)
        if device.HasField("utilization_ratio"):
            busy.add_metric([device.device_id], device.utilization_ratio)
        if device.HasField("temperature_celsius"):
            heat.add_metric([device.device_id], device.temperature_celsius)
        quarantined.add_metric([device.device_id], bool(device.quarantine_reason))
    return (total, free, busy, heat, quarantined)


def _power(devices: Iterable[model.Device]) -> Iterable[Metric]:
    power = _gauge("device_power_watts", "What a device draws.", "device")
    used = CounterMetricFamily(
        "cortex_neuron_device_energy_joules",
        "What a device has used: measured by itself, or estimated from what it drew.",
        labels=["device", "source"],
    )
    for device in devices:
        if device.HasField("power_watts"):
            power.add_metric([device.device_id], device.power_watts)
        if device.HasField("energy_joules"):
            source = "estimated" if device.energy_estimated else "measured"
            used.add_metric([device.device_id, source], device.energy_joules)
    return (power, used)


def _request_energy(joules: Mapping[str, float]) -> Metric:
    used = CounterMetricFamily(
        "cortex_neuron_request_energy_joules",
        "What the devices have used for requests, by their part of the devices' time.",
        labels=["model"],
    )
    for name, count in joules.items():
        used.add_metric([name], count)
    return used
