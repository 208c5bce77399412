"""Has a worker load an instance: the step that a first load and a recovery share."""

from __future__ import annotations

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.frames import LoadAdvanced
from services.neuron.instances.adopt import adopt
from services.neuron.instances.assign import Assignments
from services.neuron.instances.instances import Instance, Instances
from services.neuron.rendering.renderer import Renderers
from services.neuron.supervisor.slot import WorkerSlot


class WorkerLoads:
    """Loads instances into workers, one at a time per worker."""

    def __init__(
        self, *, instances: Instances, assignments: Assignments, renderers: Renderers
    ) -> None:
        """Loads nothing yet.

        Args:
            instances: told how far each load has come.
            assignments: told how much of the memory that was promised is taken by now.
            renderers: where their chat templates run.
        """
        self._instances = instances
        self._assignments = assignments
        self._renderers = renderers

    async def load(self, slot: WorkerSlot, instance: Instance) -> None:
        """Loads an instance by its plan, and links it to the worker's process.

        Args:
            slot: the worker; its process is waited for.
            instance: one that has a plan.

        Raises:
            FleetError: with the engine's words, or because the worker cannot run or died.
        """
        plan = instance.plan
        assert plan is not None

        def on_progress(report: LoadAdvanced) -> None:
            step = report.step
            slot.note_load_progress()
            self._assignments.note(instance.instance_id, step.bytes_done)
            self._instances.note_progress(
                instance,
                model.LoadProgress(
                    phase=model.LOAD_PHASE_WARMING if report.warming else model.LOAD_PHASE_LOADING,
                    bytes_done=step.bytes_done,
                    bytes_total=step.bytes_total,
                    modules_done=step.modules_done,
                    modules_total=step.modules_total,
                ),
            )

        async with slot.load_gate:
            link = await slot.ready()
            slot.note_load()
            loaded = await link.load(plan, on_progress)
            try:
                await adopt(instance, loaded, link, self._renderers)
            except FleetError:  # loaded well, and of no use: it must not stay there unseen
                await link.unload(instance.instance_id)
                raise
            if link.is_lost:
                raise FleetError(Reason.WORKER_LOST, "The worker died right behind the load.")
            instance.link = link
