"""Loads a model on all ranks of a group, module by module, and hands rank 0's part of it on."""

from __future__ import annotations

import gc
import itertools
import pathlib
from collections.abc import Generator

from services.neuron.engine_api.model import EnginePoisoned, LoadFailed, LoadPlan, LoadStep
from services.neuron.engines.exllamav2.files import weights
from services.neuron.engines.exllamav2.files.configuration import ModelFolder
from services.neuron.engines.exllamav2.files.weights import TensorSizes
from services.neuron.engines.exllamav2.library.library import Library
from services.neuron.engines.exllamav2.model import sizing
from services.neuron.engines.exllamav2.model.generators import GeneratorParts
from services.neuron.engines.exllamav2.model.sizing import Shape
from services.neuron.engines.exllamav2.parallel.group import Group
from services.neuron.engines.exllamav2.parallel.leader import LeadingModel, lead
from services.neuron.engines.exllamav2.parallel.messages import (
    Advance,
    Begin,
    MeasureModel,
    RankAnswer,
)
from services.neuron.engines.exllamav2.parallel.model import RankModel, failing_alone
from services.neuron.engines.exllamav2.parallel.rank import share_of_geometry, share_of_weights

_MOST_TRIES = 4
"""Of one load, each with a smaller cache where its size is left open."""


def load(
    library: Library, group: Group, plan: LoadPlan, folder: ModelFolder
) -> Generator[LoadStep, None, GeneratorParts]:
    """Loads a model on every rank. Closing the generator frees what was loaded.

    Raises:
        LoadFailed: with the library's own words, and the rank where that was not rank 0.
        EnginePoisoned: a rank is lost.
    """
    for _ in group.meet():
        yield LoadStep()
    read = weights.read(folder.path)
    shape: Shape | None = _shape(library, group, plan, folder, read)
    for tried in itertools.count(1):
        assert shape is not None
        try:
            return (yield from _Loading(library, group, plan, folder, shape).run(read))
        except LoadFailed as error:
            shape = sizing.smaller(plan, shape)
            if error.reason != "OUT_OF_MEMORY" or shape is None or tried == _MOST_TRIES:
                raise
    raise AssertionError


def _shape(
    library: Library, group: Group, plan: LoadPlan, folder: ModelFolder, read: TensorSizes
) -> Shape:
    """The sizes that the fullest device allows; each holds an equal share."""
    count = group.rank.count
    return sizing.settle(
        plan,
        share_of_geometry(folder.geometry, count),
        share_of_weights(read, count),
        free_bytes=min(library.free_bytes(), *group.free_bytes()),
        devices=1,
    )


class _Loading:
    """One try, with a cache of one size."""

    def __init__(
        self, library: Library, group: Group, plan: LoadPlan, folder: ModelFolder, shape: Shape
    ) -> None:
        self._library = library
        self._group = group
        self._plan = plan
        self._folder = folder
        self._shape = shape

    def run(self, read: TensorSizes) -> Generator[LoadStep, None, GeneratorParts]:
        own: RankModel | None = None
        try:
            own = self._begin()
            yield from self._advance(own)
            return self._parts(own, read)
        except EnginePoisoned:
            raise  # with this process the others end, and what they hold
        except BaseException:
            self._abandon(own)
            raise

    def _begin(self) -> RankModel:
        plan, group = self._plan, self._group
        group.tell(Begin(plan.instance_id, plan.path, self._shape))
        try:
            own = RankModel(
                self._library,
                group.collectives,
                self._shape,
                path=pathlib.Path(plan.path),
                kind=LeadingModel,
            )
        finally:
            answers = group.answers()
        lead(own, plan.instance_id, group.tell, group.drop)
        _check(answers)
        return own

    def _advance(self, own: RankModel) -> Generator[LoadStep, None, None]:
        """Every rank loads the same module at a time; between two of them others may be stepped."""
        done = [0, *itertools.accumulate(own.module_bytes())]
        for number in range(own.module_count):
            at = min(number, len(done) - 1)
            yield LoadStep(done[at], done[-1], at, own.module_count)
            self._group.tell(Advance(self._plan.instance_id))
            try:
                own.advance()
            finally:
                answers = self._group.answers()
            _check(answers)

    def _parts(self, own: RankModel, read: TensorSizes) -> GeneratorParts:
        held = [one.number for one in self._group.ask(MeasureModel(self._plan.instance_id))]
        sizes = [own.held_bytes(), *held]
        with failing_alone():
            tokenizer = self._library.exllamav2.ExLlamaV2Tokenizer(own.config)
        return GeneratorParts(
            library=self._library,
            shape=self._shape,
            model=own.model,
            cache=own.cache,
            tokenizer=tokenizer,
            quantisation=read.quantisation,
            rank_bytes=dict(zip(self._group.device_ids, sizes, strict=True)),
        )

    def _abandon(self, own: RankModel | None) -> None:
        if own is None:
            self._group.drop(self._plan.instance_id)
        else:
            own.release()
        gc.collect()
        self._library.torch.cuda.empty_cache()


def _check(answers: list[RankAnswer]) -> None:
    for number, answer in enumerate(answers, start=1):
        if answer.reason:
            raise LoadFailed(answer.reason, f"Rank {number}: {answer.message}")
