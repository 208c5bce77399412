"""How long one placement decision takes: many neurons, many models, mostly full.

Measured in CPU time of the thread: a decision waits for nothing, so that is what it takes on a
machine that nobody else uses.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

from services.registry.catalogue.catalogue import Catalogue
from services.registry.catalogue.profile import LoadTerms, Profile
from services.registry.control.control_plane import ControlPlane
from services.registry.fleet.leases import Leases
from services.registry.fleet.policy import Policy
from services.registry.fleet.records import (
    Device,
    Instance,
    InstanceState,
    NeuronIdentity,
    NeuronReport,
)
from services.registry.fleet.state import FleetState
from services.registry.placement.demand import Demand, DemandKey
from services.registry.placement.orders import Event, LoadOrder, UnloadOrder, UpdateOrder
from services.registry.scheduler import select

_GIB = 1 << 30


class _NoEffects:
    def load(self, order: LoadOrder) -> None: ...
    def cancel_load(self, order_id: int) -> None: ...
    def unload(self, order: UnloadOrder) -> None: ...
    def update(self, order: UpdateOrder) -> None: ...
    def record(self, event: Event) -> None: ...


def control_of(
    neurons: int, models: int, full: float, seed: int
) -> tuple[ControlPlane, list[float]]:
    """A fleet of two-GPU neurons; so many of their devices hold a model.

    Returns: the control, and how long each report took to take in.
    """
    dice = random.Random(seed)
    profiles = {
        f"m{i}": Profile(
            f"m{i}",
            LoadTerms(source=f"path:/m{i}"),
            1,
            memory_bytes=dice.choice((4, 8, 16, 22, 40)) * _GIB,
            max_devices=2,
            residency_class=dice.choice((100, 100, 200)),
            labels={"zone": dice.choice("ab")} if dice.random() < 0.2 else {},
        )
        for i in range(models)
    }
    names = sorted(profiles)
    fleet_state = FleetState(
        time.monotonic,
        Policy(minimum_residency=0.0, patience=1e9, max_wait=1e9),
        catalogue=Catalogue(profiles, {}, 1),
    )
    control = ControlPlane(fleet_state, _NoEffects(), Leases(lease_seconds=1e9, forget_seconds=1e9))
    seconds: list[float] = []
    for index in range(neurons):
        held: list[Instance] = []
        for device in ("gpu0", "gpu1"):
            if dice.random() < full:
                model = dice.choice(names)
                size = min(profiles[model].memory_bytes, 22 * _GIB)
                active = int(dice.random() < 0.5)
                held.append(
                    Instance(
                        f"{index}/{device}",
                        model,
                        InstanceState.READY,
                        {device: size},
                        active_requests=active,
                        config_revision=1,
                        last_used=dice.random() * 1000 + 1,
                    )
                )
        devices = tuple(
            Device(
                d, "cuda", 24 * _GIB, (24 - (22 if any(d in i.memory for i in held) else 0)) * _GIB
            )
            for d in ("gpu0", "gpu1")
        )
        name = f"n{index}"
        began = time.thread_time()
        epoch = control.membership.attach(
            NeuronIdentity(name, "i", f"{name}:1", {"zone": dice.choice("ab")})
        )
        control.membership.report(name, epoch, NeuronReport(1, devices, tuple(held)))
        seconds.append(time.thread_time() - began)
    return control, seconds


def measure(control: ControlPlane, decisions: int) -> list[float]:
    """CPU seconds of each decision, models in turn."""
    fleet_state = control.fleet_state
    profiles = list(fleet_state.catalogue.profiles.values())
    neurons = control.cache.index  # made once, and again where a report changed something
    taken: list[float] = []
    for index in range(decisions):
        profile = profiles[index % len(profiles)]
        demand = Demand(DemandKey(profile.model), profile, fleet_state.clock())
        began = time.thread_time()
        request = control.requests.request_for(demand, {}, fleet_state.clock())
        select.decide(request, control.cache.index)
        taken.append(time.thread_time() - began)
    assert neurons
    return taken


def main() -> None:
    """Prints median and 99th percentile."""
    parser = argparse.ArgumentParser(prog="python -m bench.simulate.decide", description=__doc__)
    parser.add_argument("--neurons", type=int, default=10_000)
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--decisions", type=int, default=500)
    asked = parser.parse_args()
    for full in (0.7, 1.0):
        control, reports = control_of(asked.neurons, asked.models, full, 1)
        taken = sorted(measure(control, asked.decisions))
        print(
            f"{asked.neurons} neurons x {asked.models} models, {full:.0%} of devices in use: "
            f"decision median {statistics.median(taken) * 1e3:.1f} ms, "
            f"p99 {taken[int(len(taken) * 0.99)] * 1e3:.1f} ms; "
            f"a report {statistics.median(reports) * 1e6:.0f} us"
        )


if __name__ == "__main__":
    main()
