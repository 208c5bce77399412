"""A model's chat template may do what it likes: only the request that it is run for feels it."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import signal
import sys
from collections.abc import AsyncGenerator
from string import ascii_lowercase
from typing import Any

import pytest

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import Reason
from services.neuron.settings import TemplateLimits
from tests.doubles.neuron_host import PATIENCE_SECONDS, NeuronHost, chat, refusal, running_neuron
from tests.doubles.neuron_transports import answer, session_of

WORDS = ("la", " li", " lu")
SHORT = generation.StopRules(max_tokens=3)
# Behind a switch, so that the same model can be seen to serve afterwards.
HOSTILE = """
{%- set text = messages[-1].content -%}
{%- if text == 'loop' -%}
{%- for a in range(99999) -%}{%- for b in range(99999) -%}{%- for c in range(99999) -%}
{%- endfor -%}{%- endfor -%}{%- endfor -%}
{%- elif text == 'fill' -%}{{ text[0] * 10 ** 9 }}
{%- elif text == 'write' -%}{%- for a in range(99999) -%}{{ text * 99999 }}{%- endfor -%}
{%- endif -%}
{{ text }}"""


@pytest.fixture
async def host(tmp_path: pathlib.Path) -> AsyncGenerator[NeuronHost]:
    limits = TemplateLimits(seconds=1.0, memory_bytes=1 << 30)
    async with running_neuron(tmp_path, templates=limits, constraint_seconds=1.0) as host:
        host.script("bystander", words=WORDS, is_endless=True)
        host.script("hostile", words=WORDS, is_endless=True, chat_template=HOSTILE)
        await host.load("bystander")
        await host.load("hostile")
        yield host


def children(of: int | None = None) -> set[int]:
    """Processes that render, by whose child they are."""
    found: set[int] = set()
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        if parent == (of or os.getpid()) and b"services.neuron.rendering" in words:
            found.add(int(folder.name))
    return found


def is_running(pid: int) -> bool:
    """False for what has ended, and for what waits to be buried."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def processor_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def next_text(stream: Any) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for event in stream:
            if event.HasField("text"):
                return
    raise AssertionError("the stream has ended")


async def until_children(count: int, *, without: set[int]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(children() - without) < count:
            await asyncio.sleep(0.02)


async def test_a_template_that_exceeds_its_limits_fails_its_own_request_alone(host):
    async with session_of(host) as session:
        bystander = session.start(chat(model="bystander"), credit=1)
        for text in ("loop", "fill", "write", "loop"):
            victim = asyncio.create_task(answer(session.start(chat(text, model="hostile"))))
            behind = asyncio.create_task(answer(session.start(chat(model="hostile", stop=SHORT))))
            if text == "loop":
                for _ in range(5):
                    bystander.grant(1)
                    await next_text(bystander)
                assert not victim.done()
            failed = await victim
            assert failed.error is not None
            assert failed.error.reason is Reason.TEMPLATE_FAILED, text
            assert "chat template" in failed.error.message
            assert (await behind).finished.usage.completion_tokens == 3

    chats = chat("loop").chat
    counted = neuron.CountTokensRequest(model="hostile", chat=chats)
    error = await refusal(host.stub.CountTokens(counted))
    assert error.reason is Reason.TEMPLATE_FAILED


async def test_a_template_that_cannot_be_compiled_within_its_limits_takes_no_chats(host):
    host.script("folded", words=WORDS, chat_template="{{ 'a' * 10 ** 9 }}")
    await host.load("folded")

    error = await refusal(host.stub.Generate(chat(model="folded")))

    assert error.reason is Reason.TEMPLATE_FAILED
    text = generation.GenerateRequest(model="folded", text="hi", stop=SHORT)
    assert [event async for event in host.stub.Generate(text)]


async def test_a_schema_that_takes_too_long_to_compile_fails_its_own_request_alone(host):
    # each pattern doubles what llguidance looks through to see whether all can hold at once
    patterns = [{"type": "string", "pattern": f".*{letter}.*"} for letter in ascii_lowercase[:20]]
    endless = generation.OutputConstraint(json_schema=json.dumps({"allOf": patterns}))
    simple = generation.OutputConstraint(regex="(la|li)+")
    async with session_of(host) as session:
        bystander = session.start(chat(model="bystander"), credit=1)
        for _ in range(2):
            start = session.start(chat(model="bystander", constraint=endless))
            victim = asyncio.create_task(answer(start))
            for _ in range(5):
                bystander.grant(1)
                await next_text(bystander)
            assert not victim.done()
            failed = await victim
            assert failed.error is not None
            assert failed.error.reason is Reason.BAD_CONSTRAINT
            assert failed.error.field == "constraint"
        plain = chat(model="bystander", constraint=simple, stop=SHORT)
        assert (await answer(session.start(plain))).error is None


def forced(parameters: dict[str, Any], *, strict: bool) -> generation.GenerateRequest:
    request = chat(model="bystander", stop=generation.StopRules(max_tokens=60))
    request.chat.tools.add(
        name="culprit", parameters_schema_json=json.dumps(parameters), strict=strict
    )
    request.chat.tool_choice.required.SetInParent()
    return request


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("const", {"type": "string", "const": 5}),
        (
            "pattern",
            {"allOf": [{"type": "string", "pattern": f".*{c}.*"} for c in ascii_lowercase]},
        ),
    ],
    ids=["impossible", "slow"],
)
async def test_what_a_worker_cannot_enforce_of_a_forced_call_is_named(host, keyword, value):
    """Where the tool is strict; another is held to the rest, and its calls say so."""
    parameters = {"type": "object", "properties": {"a": value}, "required": ["a"]}
    async with session_of(host) as session:
        refused = await answer(session.start(forced(parameters, strict=True)))
        served = await answer(session.start(forced(parameters, strict=False)))

    assert refused.error is not None
    assert refused.error.reason is Reason.BAD_CONSTRAINT
    assert refused.error.field == "tools.0.parameters_schema_json"
    assert "'culprit'" in refused.error.message
    assert f"'{keyword}'" in refused.error.message
    assert served.error is None
    told = {each.tool_call.repair for each in served.events} - {""}
    assert told == {f"not held to {keyword} of the tool's schema"}


async def test_a_process_that_is_killed_comes_back_by_itself(host):
    before = children()
    assert len(before) == 2

    for pid in before:
        os.kill(pid, signal.SIGKILL)

    await until_children(2, without=before)
    async with session_of(host) as session:
        made = await answer(session.start(chat(model="hostile", stop=SHORT)))
    assert made.finished.usage.completion_tokens == 3


async def test_an_unload_ends_the_process(host):
    async for _ in host.stub.Unload(neuron.UnloadRequest(model="hostile")):
        pass

    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(children()) > 1:
            await asyncio.sleep(0.02)


async def test_credit_that_comes_while_the_prompt_is_rendered_counts(host):
    async with session_of(host) as session:
        slow = session.start(chat("loop", model="hostile"))
        behind = session.start(chat(model="hostile", stop=SHORT), credit=1)
        behind.grant(5)
        assert (await answer(slow)).error is not None
        assert (await answer(behind)).finished.usage.completion_tokens == 3


DAEMON = """
import asyncio, os, pathlib, sys
from services.neuron.settings import TemplateLimits
from tests.doubles.neuron_host import chat, running_neuron

async def main():
    folder = pathlib.Path(sys.argv[1])
    async with running_neuron(folder, templates=TemplateLimits(seconds=600)) as host:
        host.script("hostile", words=("la",), chat_template=pathlib.Path(sys.argv[2]).read_text())
        await host.load("hostile")
        call = host.stub.Generate(chat("loop", model="hostile"))
        asyncio.ensure_future(call.read())
        print("running", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_no_process_outlives_a_daemon_that_is_killed(tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text(HOSTILE)
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DAEMON, str(tmp_path), str(template), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert daemon.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (line := await daemon.stdout.readline()) != b"running\n":
                assert line, "the daemon ended"
        (child,) = children(of=daemon.pid)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while processor_seconds(child) < 1.0:  # it is in the loop, and reads nothing
                await asyncio.sleep(0.05)
    finally:
        daemon.kill()
        await daemon.wait()

    async with asyncio.timeout(PATIENCE_SECONDS):
        while is_running(child):
            await asyncio.sleep(0.02)
