"""A rank that follows: does what rank 0 says, in that order, until rank 0 is gone."""

from __future__ import annotations

import contextlib
import gc
import pathlib

from services.neuron.engine_api.model import LoadFailed
from services.neuron.engines.exllamav2.library.library import Library
from services.neuron.engines.exllamav2.parallel.channel import Channel
from services.neuron.engines.exllamav2.parallel.collectives import Collectives
from services.neuron.engines.exllamav2.parallel.messages import (
    Advance,
    Begin,
    CopyStates,
    Drop,
    Join,
    Measure,
    MeasureModel,
    Order,
    RankAnswer,
    RunForward,
    RunHead,
)
from services.neuron.engines.exllamav2.parallel.model import RankModel
from services.neuron.engines.exllamav2.parallel.rank import Rank


class Follower:
    """The models of one rank, by instance id."""

    def __init__(self, library: Library, rank: Rank, channel: Channel[Order]) -> None:
        """Has no models yet."""
        self._library = library
        self._rank = rank
        self._channel = channel
        self._collectives: Collectives | None = None
        self._models: dict[str, RankModel] = {}

    def run(self) -> None:
        """Follows; what goes wrong in a pass ends it, and the whole group with it.

        Raises:
            ClosedError: rank 0 is gone.
        """
        while True:
            order = self._channel.receive()
            if order is not None:
                self._follow(order)

    def _follow(self, order: Order) -> None:
        match order:
            case RunForward():
                self._models[order.instance_id].run(order)
            case RunHead():
                self._models[order.instance_id].run_head(order)
            case CopyStates():
                self._models[order.instance_id].copy_states(order)
            case _:
                try:
                    number = self._answered(order)
                except LoadFailed as error:
                    self._channel.send(RankAnswer(reason=error.reason, message=error.message))
                else:
                    self._channel.send(RankAnswer(number))

    def _answered(self, order: Order) -> int:
        """Does what is answered, with a number where that is asked for."""
        match order:
            case Join(store=store):
                self._collectives = Collectives(self._rank, store)
            case Measure():
                return self._library.free_bytes()
            case Begin():
                self._begin(order)
            case Advance(instance_id=instance_id):
                self._models[instance_id].advance()
            case MeasureModel(instance_id=instance_id):
                return self._models[instance_id].held_bytes()
            case Drop(instance_id=instance_id):
                self._drop(instance_id)
            case _:
                raise AssertionError(order)
        return 0

    def _begin(self, order: Begin) -> None:
        assert self._collectives is not None
        self._models[order.instance_id] = RankModel(
            self._library, self._collectives, order.shape, path=pathlib.Path(order.path)
        )

    def _drop(self, instance_id: str) -> None:
        model = self._models.pop(instance_id, None)
        if model is not None:
            with contextlib.suppress(Exception):  # half loaded: what it had goes with it
                model.release()
            del model
        gc.collect()
        self._library.torch.cuda.empty_cache()
