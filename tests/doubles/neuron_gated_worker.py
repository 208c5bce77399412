"""A worker whose loads wait for the models that run: none of them can end too soon.

As llama.cpp's own worker, but a load that begins beside a loaded model goes on, step by step, until
that model has made two steps meanwhile.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Generator

from services.neuron.engine_api.engine import Engine, LoadedModel
from services.neuron.engine_api.model import LoadPlan, LoadStep
from services.neuron.engines import create_engine
from services.neuron.worker.link import DaemonLink
from services.neuron.worker.loop import EngineLoop

_STEPS = 2


class GatedEngine:
    """An engine whose loads end only after others have been stepped beside them."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        self._models: list[LoadedModel] = []

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def facts(self) -> dict[str, str]:
        return self._inner.facts

    def load(self, plan: LoadPlan) -> Generator[LoadStep, None, LoadedModel]:
        before = self._steps
        while self._models and self._steps < before + _STEPS:
            yield LoadStep()
        model = yield from self._inner.load(plan)
        self._models.append(model)
        return model

    @property
    def _steps(self) -> int:
        return sum(model.stats().steps for model in self._models)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", required=True)
    parser.add_argument("--fd", type=int, required=True)
    arguments = parser.parse_args()
    with socket.socket(fileno=arguments.fd) as daemon:
        EngineLoop(GatedEngine(create_engine(arguments.engine)), DaemonLink(daemon)).run()


if __name__ == "__main__":
    main()
