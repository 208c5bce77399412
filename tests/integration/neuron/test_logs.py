"""A neuron or a worker that crashes in a request says where, and nothing of what it was given."""

from __future__ import annotations

import sys

import pytest

from services.neuron.serving.generations import Generations
from tests.doubles.neuron_host import chat, refusal, running_neuron
from tests.doubles.planted import OUTPUT, PROMPT, assert_crash_tells_nothing, crash, logged


def crashing_worker(*, engine: str, fd: int) -> list[str]:
    module = "tests.doubles.neuron_crashing_worker"
    return [sys.executable, "-m", module, "--engine", engine, "--fd", str(fd)]


@pytest.mark.parametrize("form", ["json", "console"])
async def test_a_crash_of_the_daemon_tells_no_prompt(tmp_path, form, monkeypatch):
    monkeypatch.setattr(Generations, "begin", crash)

    async with running_neuron(tmp_path) as host:
        with logged(form, "neuron") as log:
            await refusal(host.stub.Generate(chat(PROMPT, model="bravo")))

    assert_crash_tells_nothing(log.getvalue())


@pytest.mark.parametrize("form", ["json", "console"])
async def test_a_crash_of_a_worker_tells_no_prompt_or_output(tmp_path, form):
    with logged(form, "neuron") as log:
        async with running_neuron(tmp_path, worker_command=crashing_worker) as host:
            host.script("bravo", words=(OUTPUT, " more"))
            await host.load("bravo")
            call = host.stub.Generate(chat(PROMPT, model="bravo"))
            await refusal(call)

    assert_crash_tells_nothing(log.getvalue())
