"""A neuron or a worker that crashes in a request says where, and nothing of what it was given."""

from __future__ import annotations

import sys

import pytest

from services.neuron.serving.generations import Generations
from services.neuron.supervisor.process import WorkerCommand
from tests.doubles.neuron_host import chat, refusal, running_neuron
from tests.doubles.planted import (
    OUTPUT,
    PROMPT,
    assert_crash_tells_nothing,
    crash,
    crashing_path,
    logged,
)


def crashing_worker(how: str) -> WorkerCommand:
    module = "tests.doubles.neuron_crashing_worker"

    def command(*, engine: str, fd: int) -> list[str]:
        return [sys.executable, "-m", module, how, "--engine", engine, "--fd", str(fd)]

    return command


@pytest.mark.parametrize("form", ["json", "console"])
async def test_a_crash_of_the_daemon_tells_no_prompt(tmp_path, form, monkeypatch, capfd):
    monkeypatch.setattr(Generations, "begin", crash)

    async with running_neuron(tmp_path) as host:
        with logged(form, "neuron") as log:
            await refusal(host.stub.Generate(chat(PROMPT, model="bravo")))

    assert_crash_tells_nothing(log.getvalue() + "".join(capfd.readouterr()))


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("how", ["command", "step", "writer", "reader"])
async def test_a_crash_of_a_worker_tells_no_prompt_or_output(tmp_path, form, how, capfd):
    with logged(form, "neuron") as log:
        async with running_neuron(tmp_path, worker_command=crashing_worker(how)) as host:
            host.script("bravo", words=(OUTPUT, " more"))
            await host.load("bravo")
            call = host.stub.Generate(chat(PROMPT, model="bravo"))
            await refusal(call)

    assert_crash_tells_nothing(log.getvalue() + "".join(capfd.readouterr()))


async def test_a_crash_of_a_process_that_renders_tells_no_prompt(tmp_path, monkeypatch, capfd):
    path = crashing_path(
        tmp_path,
        program="services.neuron.rendering",
        module="services.neuron.chat.template",
        owner="ChatTemplate",
        name="render",
    )
    monkeypatch.setenv("PYTHONPATH", path)

    with logged("json", "neuron") as log:
        async with running_neuron(tmp_path) as host:
            host.script("bravo")
            await host.load("bravo")
            await refusal(host.stub.Generate(chat(PROMPT, model="bravo")))

    assert_crash_tells_nothing(log.getvalue() + "".join(capfd.readouterr()))
