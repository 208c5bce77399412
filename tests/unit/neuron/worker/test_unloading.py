"""Models on their way out of a worker."""

from __future__ import annotations

import weakref
from collections.abc import Collection
from typing import Any

from services.neuron.engine_api.device_time import StepTimes
from services.neuron.engine_api.fair_shares import FairShares
from services.neuron.engine_api.frames import Charged, Report, Unloaded
from services.neuron.engine_api.model import LoadPlan
from services.neuron.worker.charges import Charges
from services.neuron.worker.models import WorkerInstance, WorkerInstances
from services.neuron.worker.unloading import Unloading


class Model:
    """As much of a loaded model as an unload touches."""

    is_closed = False

    def take_times(self, ended: Collection[int] | None = None) -> StepTimes:
        assert ended is None
        return StepTimes((), 0)

    def close(self) -> None:
        self.is_closed = True


class Link:
    """Notes what is sent, and whether the model was still in memory then."""

    def __init__(self) -> None:
        self.model = weakref.ref(Model())
        self.sent: list[tuple[Report, bool]] = []

    def send(self, report: Report) -> None:
        self.sent.append((report, self.model() is not None))


def test_nothing_holds_the_model_any_more_when_its_memory_is_given_back() -> None:
    link: Any = Link()
    unloading = Unloading(link, Charges(link, FairShares()))
    model: Any = Model()
    link.model = weakref.ref(model)
    instances = WorkerInstances()
    instances.add(WorkerInstance(LoadPlan("i", "llamacpp", "m", model="tiny"), model))
    del model
    gone = instances.remove("i")
    assert gone is not None
    unloading.begin(gone, "ann")
    del gone

    unloading.advance()

    (charged, _), (unloaded, was_there) = link.sent
    assert isinstance(charged, Charged)
    assert [(one.principal, one.model) for one in charged.charges] == [("ann", "tiny")]
    assert isinstance(unloaded, Unloaded)
    assert unloaded.instance_id == "i"
    assert not was_there
