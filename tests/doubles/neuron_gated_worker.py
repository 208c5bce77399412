"""A worker whose loads wait for the test: llama.cpp's own, with a gate before each load.

A load of `NAME.gguf` goes on, step by step, as long as there is a file `NAME.held` beside it.
"""

from __future__ import annotations

import argparse
import pathlib
import socket
from collections.abc import Generator

from services.neuron.engine_api.engine import Engine, LoadedModel
from services.neuron.engine_api.fair_shares import FairShares
from services.neuron.engine_api.model import LoadPlan, LoadStep
from services.neuron.engines import create_engine
from services.neuron.worker.link import DaemonLink
from services.neuron.worker.loop import EngineLoop


class GatedEngine:
    """An engine whose loads end when the test lets them."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner

    @property
    def shares(self) -> FairShares:
        return self._inner.shares

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def facts(self) -> dict[str, str]:
        return self._inner.facts

    def load(self, plan: LoadPlan) -> Generator[LoadStep, None, LoadedModel]:
        while pathlib.Path(plan.path).with_suffix(".held").exists():
            yield LoadStep()
        return (yield from self._inner.load(plan))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", required=True)
    parser.add_argument("--fd", type=int, required=True)
    arguments = parser.parse_args()
    with socket.socket(fileno=arguments.fd) as daemon:
        EngineLoop(GatedEngine(create_engine(arguments.engine)), DaemonLink(daemon)).run()


if __name__ == "__main__":
    main()
