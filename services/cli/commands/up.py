"""`cortex up`: the whole fleet on this machine, with a real small model, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import shlex
import shutil
import socket
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated

import typer

from services.backplane.address import Address, PortTakenError
from services.backplane.first_ended import first_ended
from services.backplane.process import lifecycle
from services.backplane.process.lifecycle import Shutdown
from services.backplane.security.credentials import own_credentials
from services.backplane.security.roles import Role
from services.backplane.settings import load
from services.cli.children import Child, ChildFailedError
from services.cli.first_question import DEFAULT_MODEL, Question
from services.cli.local_fleet import LocalFleet, default_data_dir
from services.cli.logs.rotation import keep_bounded
from services.cli.options import KeyOption
from services.cli.terminal import complain, out
from services.cli.up_settings import DEFAULT_PORT, LAST_PORT, LOOPBACK, choose


def up(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Load this first.",
            show_default=f"{DEFAULT_MODEL}, or the first that can chat",
        ),
    ] = "",
    config: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--config", "-c", help="Settings of all three services; `up` adds what they leave open."
        ),
    ] = None,
    data_dir: Annotated[
        pathlib.Path | None, typer.Option("--data-dir", help="Models, catalogue and logs.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host", help="Where the gateway listens for clients.", show_default=LOOPBACK
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            "-p",
            min=0,
            max=LAST_PORT,
            help="Of the gateway; 0 picks free ones for everything.",
            show_default=str(DEFAULT_PORT),
        ),
    ] = None,
    ask: Annotated[
        str, typer.Option("--ask", help="First question, to see that it works.")
    ] = "Say hello in one short sentence.",
    api_key: KeyOption = "",
    *,
    once: Annotated[bool, typer.Option("--once", help="Answer the question and end.")] = False,
) -> None:
    """Run registry, neuron and gateway on this machine, load a model, answer a first question."""

    async def main(shutdown: Shutdown) -> int:
        fleet = _fleet(config, data_dir or default_data_dir(os.environ), host=host, port=port)
        question = Question(model=model, ask=ask, api_key=api_key)
        return await _run(fleet, shutdown, question, once=once)

    raise typer.Exit(lifecycle.run(main))


def _fleet(
    config: pathlib.Path | None, data_dir: pathlib.Path, *, host: str | None, port: int | None
) -> LocalFleet:
    """The fleet of the user's settings and what they leave open."""
    from services.gateway import settings as gateway_settings

    document = load(config, os.environ)
    settings = choose(document, data_dir, host=host, port=port)
    gateway, auth = gateway_settings.read(settings.document)
    neuron = settings.document.tables["neuron"]["name"]
    credentials = own_credentials(document, Role.NEURON, neuron=neuron)
    if credentials is not None:  # one certificate for all that runs here
        for role in (Role.REGISTRY, Role.GATEWAY, Role.OPERATOR):
            credentials.require_own(role)
    fleet = LocalFleet(
        data_dir,
        settings,
        gateway=gateway,
        auth=auth,
        config=config,
        credentials=credentials,
    )
    if document.tables:
        sources = sorted(set(document.variables.values())) or [document.source]
        if document.variables and document.source != "environment":
            sources.insert(0, document.source)
        chosen = ", ".join(
            f"{key} = {value if isinstance(value, str) else ', '.join(value)}"
            for key, value in settings.values()
        )
        out.print(
            f"set by `cortex up`: {chosen or 'nothing'}; the rest: {', '.join(sources)}",
            soft_wrap=True,
        )
    return fleet


async def _run(fleet: LocalFleet, shutdown: Shutdown, question: Question, *, once: bool) -> int:
    started = time.monotonic()
    _check_ports(fleet)
    fleet.prepare()
    try:
        async with _running(fleet.children()) as died:
            greeting = asyncio.create_task(_greet(fleet, question, started, once=once))
            code = 0
            if await first_ended(shutdown.wait(), greeting, kept=(died,)) is greeting:
                code = greeting.result()
                if not once and code == 0:
                    await first_ended(shutdown.wait(), kept=(died,))
            if died.done():
                died.result()
            if not once:
                out.print("ending: gateway, neuron, registry")
            return code
    except ChildFailedError as error:
        complain(str(error))
        return lifecycle.EX_UNAVAILABLE


@contextlib.asynccontextmanager
async def _running(children: Sequence[Child]) -> AsyncGenerator[asyncio.Task[None]]:
    """Keeps children running; yields what ends, with its error, when one of them cannot go on."""
    tasks = [asyncio.create_task(child.keep_running()) for child in children]
    died = asyncio.create_task(_first_failure(tasks))
    bounding = asyncio.create_task(keep_bounded([child.log_path for child in children]))

    def reload() -> None:
        for child in children:
            child.reload()

    try:
        with lifecycle.reloading(reload):
            yield died
    finally:
        died.cancel()
        bounding.cancel()
        for child in reversed(children):
            await child.end()
        for task in tasks:
            task.cancel()
        await asyncio.gather(died, bounding, *tasks, return_exceptions=True)


async def _first_failure(tasks: Sequence[asyncio.Task[None]]) -> None:
    ended = await first_ended(kept=tasks)
    if ended is not None:
        ended.result()


async def _greet(fleet: LocalFleet, question: Question, started: float, *, once: bool) -> int:
    """Asks the first question and says where the fleet is.

    Returns: the exit code; where the fleet is to go on, a question that failed is no reason to end.
    """
    failure = await question.put(fleet)
    if failure:
        complain(f"{failure.rstrip('.')}; logs: {fleet.log_dir}")
        if once or not question.is_ready:
            return 1
    _say_where(fleet, question.model, time.monotonic() - started, failed=bool(failure))
    return 0


def _program() -> str:
    """This program as a shell finds it: in a checkout it is on nobody's path."""
    return (
        "cortex"
        if shutil.which("cortex")
        else shlex.quote(str(pathlib.Path(sys.executable).with_name("cortex")))
    )


def _say_where(fleet: LocalFleet, model: str, seconds: float, *, failed: bool) -> None:
    url, cortex = fleet.gateway_url, _program()
    key = "KEY" if fleet.key("") != "" else "none"
    lines = [
        f"\nready after {seconds:.1f} s; Ctrl-C ends it\n",
        f"  OpenAI clients     OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY={key}",
        f"  Anthropic clients  ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN={key}",
        f"  metrics            {fleet.metrics_url or 'nowhere'}",
        f"  operate it         {cortex} status --registry {fleet.registry_address}",
        f"  logs               {cortex} logs --data-dir {shlex.quote(str(fleet.data_dir))}\n",
    ]
    if model and not failed:
        body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hi"}}]}}'
        header = "" if key == "none" else " -H 'authorization: Bearer KEY'"
        lines += [
            f"  curl {url}/v1/chat/completions -H 'content-type: application/json'{header} \\",
            f"    -d '{body}'\n",
        ]
    out.print("\n".join(lines), soft_wrap=True)


def _check_ports(fleet: LocalFleet) -> None:
    """Names the port that is taken before anything is started."""
    for service, listen in fleet.settings.listens():
        if not listen.is_unix:
            _check_port(service, listen)


def _check_port(service: str, listen: Address) -> None:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise PortTakenError(
            f"{service} cannot listen on {listen}: {error.strerror} (--port 0 picks free ports)"
        ) from error
