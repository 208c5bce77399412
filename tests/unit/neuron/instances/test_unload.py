from __future__ import annotations

from prometheus_client import CollectorRegistry

from cortex.v1 import model_pb2 as model
from services.backplane.changes import Changes
from services.backplane.process.faults import Faults
from services.neuron.devices.inventory import Devices
from services.neuron.instances.instances import Instance, Instances, State
from services.neuron.instances.load import Loader
from services.neuron.instances.reclaim import Reclaiming
from services.neuron.instances.unload import Freed, Unloader
from services.neuron.settings import WorkerLimits
from services.neuron.supervisor.process import python_worker
from services.neuron.supervisor.supervisor import Supervisor


async def test_devices_are_measured_before_the_copy_is_reported_gone():
    """A report without the instance but with the old free memory would make its planner wait."""
    instances = Instances(Changes())
    instance = Instance(instance_id="i", spec=model.LoadSpec(model="m"))
    instances.add(instance)
    instances.move(instance, State.READY)
    listed_then: list[bool] = []

    async def measure() -> None:
        listed_then.append(instances.get("i") is not None)

    devices = Devices(reserved_bytes=0)
    supervisor = Supervisor(
        limits=WorkerLimits(),
        memory_bytes=1,
        device_faults=devices,
        faults=Faults(CollectorRegistry(), "neuron"),
        command=python_worker,
    )
    unloader = Unloader(
        instances=instances,
        loader=Loader.__new__(Loader),  # asked for nothing: the instance is ready
        supervisor=supervisor,
        reclaiming=Reclaiming(reader=devices, instances=instances, supervisor=supervisor),
        measure=measure,
    )

    steps = [step async for step in unloader.unload(instance, 1.0)]

    assert isinstance(steps[-1], Freed)
    assert listed_then == [True]
    assert instances.get("i") is None
