"""Has a worker load an instance: the step that a first load and a recovery share."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.frames import LoadAdvanced, Loaded
from services.neuron.engine_api.model import LoadPlan
from services.neuron.instances.adopt import adopt
from services.neuron.instances.assign import Assignments
from services.neuron.instances.instances import Instance, Instances
from services.neuron.rendering.renderer import Renderers
from services.neuron.supervisor.link import WorkerLink
from services.neuron.supervisor.restart_policy import LoadDeaths
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
        self._deaths = LoadDeaths()

    async def load(self, slot: WorkerSlot, instance: Instance) -> None:
        """Loads an instance by its plan, and links it to the worker's process.

        Args:
            slot: the worker; its process is waited for.
            instance: one that has a plan.

        Raises:
            FleetError: with the engine's words, or because the worker cannot run or died;
                MODEL_FILE_BAD, too many have died of these files.
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
            loaded = await self._loaded(link, instance, plan, on_progress)
            try:
                await adopt(instance, loaded, link, self._renderers)
            except FleetError:  # loaded well, and of no use: it must not stay there unseen
                await link.unload(instance.instance_id)
                raise
            if link.is_lost:
                raise FleetError(Reason.WORKER_LOST, "The worker died right behind the load.")
            instance.link = link

    async def _loaded(
        self,
        link: WorkerLink,
        instance: Instance,
        plan: LoadPlan,
        on_progress: Callable[[LoadAdvanced], None],
    ) -> Loaded:
        stored = instance.weights
        weights = f"{plan.path} {'' if stored is None else stored.fingerprint}"
        if self._deaths.are_too_many(weights, time.monotonic()):
            raise FleetError(
                Reason.MODEL_FILE_BAD,
                f"Workers died while they loaded {pathlib.Path(plan.path).name}; it is not tried"
                " again for ten minutes, unless its files change.",
            )
        try:
            loaded = await link.load(plan, on_progress)
        except FleetError as error:
            # what was loaded before and comes back is not what the process died of
            if error.reason is Reason.WORKER_LOST and instance.info is None:
                self._deaths.note(weights, time.monotonic())
            raise
        self._deaths.forget(weights)
        return loaded
