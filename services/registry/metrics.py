"""The registry's metrics, and the log line of every load, unload and wait."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.registry.control.control_plane import ControlPlane
from services.registry.placement.orders import (
    Event,
    LoadEnded,
    LoadOrder,
    Redirected,
    UnloadEnded,
    UnloadOrder,
    UnloadReason,
    WaitEnded,
)

_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)

log = structlog.get_logger()


class RegistryMetrics:
    """The registry's Prometheus metrics. Labels are models and reasons, never sessions or callers.

    Attributes:
        total_loads: loads that ended well since the process started.
        total_evictions: instances evicted since then.
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
        self.total_loads = 0
        self.total_evictions = 0
        self._registry = registry
        self._made: dict[str, Gauge] = {}
        for why in UnloadReason:
            self.evictions.labels(why.value)
        for outcome in ("placed", "left"):
            self.placement_seconds.labels(outcome)

    def observe(self, control: ControlPlane, watchers: Callable[[], int]) -> None:
        """Exposes the state of a registry that leads, in the place of the term before.

        Args:
            control: has the state.
            watchers: counts the gateways that watch the fleet.
        """
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
