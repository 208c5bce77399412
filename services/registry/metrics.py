"""The registry's metrics, and the log line of every load, unload and wait."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from services.registry.accounting.device_metrics import DeviceUseMetrics
from services.registry.control.control_plane import ControlPlane
from services.registry.fleet.scrape_targets import scrape_targets
from services.registry.placement.orders import (
    Event,
    LoadEnded,
    LoadOrder,
    NeuronLost,
    Redirected,
    UnloadEnded,
    UnloadOrder,
    UnloadReason,
    UpdateOrder,
    WaitEnded,
)

_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)

log = structlog.get_logger()


class RegistryMetrics:
    """The registry's Prometheus metrics. Labels are models and reasons, never sessions or callers.

    Attributes:
        total_loads: loads that ended well since the process started.
        total_evictions: instances evicted since then.
        device_use: whom the devices worked for.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.loads = Counter(
            "cortex_registry_loads_total",
            "Loads that have ended, by outcome (`ready` or the error's reason).",
            ["model", "outcome"],
            registry=registry,
        )
        self.load_seconds = Histogram(
            "cortex_registry_load_seconds",
            "Time of a load that ended well.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.evictions = Counter(
            "cortex_registry_evictions_total",
            "Instances unloaded by the registry, by reason.",
            ["reason"],
            registry=registry,
        )
        self.unload_seconds = Histogram(
            "cortex_registry_unload_seconds",
            "Time to drain and free an instance.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.placement_seconds = Histogram(
            "cortex_registry_placement_seconds",
            "Time that a caller waited for a placement, by outcome.",
            ["outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._leads = Gauge(
            "cortex_registry_leader", "1 while this registry leads.", registry=registry
        )
        self._store_up = Gauge(
            "cortex_registry_store_up",
            "1 while the store answers: as the last attempt of the election found it.",
            registry=registry,
        )
        self.device_use = DeviceUseMetrics(registry)
        self._neurons = _NeuronCollector()
        registry.register(self._neurons)
        self.total_loads = 0
        self.total_evictions = 0
        self._registry = registry
        self._made: dict[str, Gauge] = {}
        for why in UnloadReason:
            self.evictions.labels(why.value)
        for outcome in ("placed", "left"):
            self.placement_seconds.labels(outcome)

    def observe_election(
        self, *, leads: Callable[[], bool], store_is_well: Callable[[], bool]
    ) -> None:
        """Exposes whether this registry leads and whether its store answers, term or no term."""
        self._leads.set_function(leads)
        self._store_up.set_function(store_is_well)

    def observe(
        self, control: ControlPlane, watchers: Callable[[], int], *, named: Collection[str] = ()
    ) -> None:
        """Exposes the state of a registry that leads, in the place of the term before.

        Args:
            control: has the state.
            watchers: counts the gateways that watch the fleet.
            named: neurons that the settings name; they stay visible as long as they do.
        """
        self._neurons.control, self._neurons.named = control, named
        fleet, placements = control.fleet_state.fleet, control.placements
        states: dict[str, Callable[[], float]] = {
            "attached": lambda: sum(not m.is_lost for m in tuple(fleet.members.values())),
            "lost": lambda: sum(m.is_lost for m in tuple(fleet.members.values())),
            "cordoned": lambda: sum(m.is_cordoned for m in tuple(fleet.members.values())),
        }
        neurons = self._gauge("cortex_registry_neurons", "Neurons, by state.", ["state"])
        for state, count in states.items():
            neurons.labels(state).set_function(count)
        figures: tuple[tuple[str, str, Callable[[], float]], ...] = (
            ("waiting", "Callers that wait for a placement.", lambda: placements.waiting),
            ("placements_open", "Models being placed.", lambda: len(placements.demands)),
            ("unloads_open", "Unloads under way.", lambda: len(control.executor.unloads)),
            ("watchers", "Gateways that watch the fleet.", watchers),
        )
        for name, text, count in figures:
            self._gauge(f"cortex_registry_{name}", text, []).set_function(count)

    def targets(self) -> bytes | None:
        """Where neurons are scraped (`scrape_targets`), as JSON; None while another one leads.

        Prometheus keeps the targets that it has where it gets none.
        """
        control = self._neurons.control
        if control is None:
            return None
        members = dict(control.fleet_state.fleet.members)
        return msgspec.json.encode(scrape_targets(members.values()))

    def stand_by(self) -> None:
        """Exposes no neurons any more: another registry tells of them."""
        self._neurons.control = None

    def _gauge(self, name: str, text: str, labels: list[str]) -> Gauge:
        existing = self._made.get(name)
        if existing is None:
            existing = self._made[name] = Gauge(name, text, labels, registry=self._registry)
        return existing

    def record(self, event: Event) -> None:
        """Counts and logs one event of placement."""
        match event:
            case LoadOrder():
                log.info(
                    "load.ordered",
                    model=event.profile.model,
                    neuron_id=event.neuron,
                    device_ids=event.device_ids,
                )
            case UnloadOrder():
                self._unload_ordered(event)
            case UpdateOrder():
                log.info(
                    "update.ordered",
                    model=event.profile.model,
                    instance_id=event.instance_id,
                    neuron_id=event.neuron,
                )
            case LoadEnded():
                self._load_ended(event)
            case UnloadEnded():
                self.unload_seconds.observe(event.seconds)
                log.info(
                    "model.unloaded" if not event.failure else "unload.failed",
                    model=event.order.model,
                    instance_id=event.order.instance_id,
                    neuron_id=event.order.neuron,
                    elapsed_ms=round(event.seconds * 1000),
                    freed_bytes=event.freed_bytes,
                    failure=event.failure,
                )
            case Redirected():
                log.info(
                    "placement.redirected",
                    model=event.model,
                    neuron_id=event.neuron,
                    to_neuron_id=event.to_neuron,
                    elapsed_ms=round(event.seconds * 1000),
                    reason=event.reason,
                )
            case NeuronLost():
                log.warning("neuron.lost", neuron_id=event.neuron)
            case WaitEnded():
                self.placement_seconds.labels(event.outcome).observe(event.seconds)
                log.debug(
                    "placement.ended",
                    model=event.model,
                    outcome=event.outcome,
                    elapsed_ms=round(event.seconds * 1000),
                )

    def _unload_ordered(self, order: UnloadOrder) -> None:
        self.evictions.labels(order.why.value).inc()
        self.total_evictions += order.why is UnloadReason.EVICTED
        log.info(
            "unload.ordered",
            model=order.model,
            instance_id=order.instance_id,
            neuron_id=order.neuron,
            why=order.why.value,
            for_model=order.for_model,
            reason=order.reason,
        )

    def _load_ended(self, event: LoadEnded) -> None:
        self.loads.labels(event.model, event.failure or "ready").inc()
        if event.failure:
            log.warning(
                "load.failed",
                model=event.model,
                neuron_id=event.neuron,
                reason=event.failure,
                detail=event.message,
                elapsed_ms=round(event.seconds * 1000),
            )
            return
        self.total_loads += 1
        self.load_seconds.labels(event.model).observe(event.seconds)
        log.info(
            "model.loaded",
            model=event.model,
            neuron_id=event.neuron,
            elapsed_ms=round(event.seconds * 1000),
        )


class _NeuronCollector(Collector):
    """Whether each neuron is attached, read from the fleet at every scrape."""

    def __init__(self) -> None:
        self.control: ControlPlane | None = None
        self.named: Collection[str] = ()

    @override
    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily(
            "cortex_registry_neuron_up",
            "1 for a neuron that is attached, 0 for one that is lost or has never come.",
            labels=["neuron"],
        )
        if self.control is not None:
            members = dict(self.control.fleet_state.fleet.members)
            for name in sorted({*members, *self.named}):
                up.add_metric([name], name in members and not members[name].is_lost)
        return (up,)
