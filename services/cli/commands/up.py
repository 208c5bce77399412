"""`cortex up`: the whole fleet on this machine, with a real small model, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import socket
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Final

import typer

from cortex.v1 import operator_service_pb2 as op
from services.backplane import lifecycle
from services.backplane.address import PortTakenError
from services.backplane.errors import FleetError, Reason
from services.backplane.first_ended import first_ended
from services.backplane.lifecycle import Shutdown
from services.backplane.rpc.calls import streaming
from services.backplane.timeouts import timeout
from services.cli.answers import answer
from services.cli.children import Child, ChildFailedError
from services.cli.local_fleet import LocalFleet, Ports, default_data_dir, free_ports
from services.cli.registry_client import err, operator, out
from services.cli.sse import ChatFailedError, GatewayClient
from services.cli.tables import step_words

DEFAULT_MODEL: Final = "smollm2-135m"
_READY_SECONDS: Final = 60.0
# A first start downloads the weights (93 MB).
_MODEL_SECONDS: Final = 900.0
_POLL_SECONDS: Final = 0.05
_OK: Final = 200


def up(
    model: Annotated[str, typer.Option("--model", "-m", help="Load this first.")] = DEFAULT_MODEL,
    config: Annotated[
        pathlib.Path | None, typer.Option("--config", "-c", help="Settings of all three services.")
    ] = None,
    data_dir: Annotated[
        pathlib.Path | None, typer.Option("--data-dir", help="Models, catalogue and logs.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Where clients may come from.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", "-p", help="Of the gateway; 0 picks free ones for everything.")
    ] = 31313,
    ask: Annotated[
        str, typer.Option("--ask", help="First question, to see that it works.")
    ] = "Say hello in one short sentence.",
    *,
    once: Annotated[bool, typer.Option("--once", help="Answer the question and end.")] = False,
) -> None:
    """Run registry, neuron and gateway on this machine, load a model, answer a first question."""
    try:
        ports = free_ports(host) if port == 0 else Ports.beside(port)
        fleet = LocalFleet(
            data_dir=data_dir or default_data_dir(os.environ), host=host, ports=ports, config=config
        )
    except OSError as error:
        err.print(f"[red]cortex:[/] {error}", highlight=False)
        raise typer.Exit(lifecycle.EX_UNAVAILABLE) from error

    async def main(shutdown: Shutdown) -> int:
        return await _run(fleet, shutdown, model=model, ask=ask, once=once)

    raise typer.Exit(lifecycle.run(main))


async def _run(fleet: LocalFleet, shutdown: Shutdown, *, model: str, ask: str, once: bool) -> int:
    started = time.monotonic()
    _check_ports(fleet)
    fleet.prepare()
    try:
        async with _running(fleet.children()) as died:
            greeting = asyncio.create_task(_greet(fleet, model, ask, started))
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
        err.print(f"[red]cortex:[/] {error}", highlight=False, soft_wrap=True)
        return lifecycle.EX_UNAVAILABLE


@contextlib.asynccontextmanager
async def _running(children: Sequence[Child]) -> AsyncGenerator[asyncio.Task[None]]:
    """Keeps children running; yields what ends, with its error, when one of them cannot go on."""
    tasks = [asyncio.create_task(child.keep_running()) for child in children]
    died = asyncio.create_task(_first_failure(tasks))

    def reload() -> None:
        for child in children:
            child.reload()

    try:
        with lifecycle.reloading(reload):
            yield died
    finally:
        died.cancel()
        for child in reversed(children):
            await child.end()
        for task in tasks:
            task.cancel()
        await asyncio.gather(died, *tasks, return_exceptions=True)


async def _first_failure(tasks: Sequence[asyncio.Task[None]]) -> None:
    ended = await first_ended(kept=tasks)
    if ended is not None:
        ended.result()


async def _greet(fleet: LocalFleet, model: str, ask: str, started: float) -> int:
    """Waits until the fleet serves, loads the model, asks it something, says where it is."""
    client = GatewayClient(fleet.gateway_url)
    try:
        with out.status("starting registry, neuron and gateway"):
            await _until_ready(client)
        await _load(fleet, model)
        out.print(f"[dim]{ask}[/]", highlight=False)
        messages = [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": ask},
        ]
        await asyncio.to_thread(answer, client, model, messages, temperature=0, max_tokens=64)
    except (ChatFailedError, FleetError, TimeoutError, OSError) as error:
        words = error.message if isinstance(error, FleetError) else str(error)
        err.print(f"[red]cortex:[/] {words}; logs: {fleet.log_dir}", highlight=False)
        return 1
    _say_where(fleet, model, time.monotonic() - started)
    return 0


async def _until_ready(client: GatewayClient) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            code, _ = await asyncio.to_thread(client.get, "/readyz", timeout=2.0)
            if code == _OK:
                return
        await asyncio.sleep(_POLL_SECONDS)
    raise TimeoutError(f"the gateway was not ready within {_READY_SECONDS:.0f} s")


async def _load(fleet: LocalFleet, model: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            async with timeout(_MODEL_SECONDS), operator(fleet.registry_address) as stub:
                call = stub.LoadModel(op.LoadModelRequest(model=model))
                with out.status(f"{model}: asks for a place") as status:
                    async with streaming(call, unavailable=Reason.REGISTRY_UNAVAILABLE) as answers:
                        async for each in answers:
                            status.update(f"{model}: {step_words(each.step)}")
        except FleetError as error:
            # the neuron may still be on its way to the registry
            if error.reason is not Reason.NO_NEURONS or time.monotonic() > deadline:
                raise
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return


def _say_where(fleet: LocalFleet, model: str, seconds: float) -> None:
    url = fleet.gateway_url
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hi"}}]}}'
    out.print(
        f"""
ready after {seconds:.1f} s; Ctrl-C ends it

  OpenAI clients     OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=none
  Anthropic clients  ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN=none
  metrics            {fleet.metrics_url}/metrics
  operate it         cortex status --registry {fleet.registry_address}
  logs               {fleet.log_dir}

  curl {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{body}'
""",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _check_ports(fleet: LocalFleet) -> None:
    """Names the port that is taken before anything is started."""
    for service, number in fleet.ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((fleet.host, number))
            except OSError as error:
                raise PortTakenError(
                    f"{service} cannot listen on {fleet.host}:{number}: {error.strerror}"
                    " (--port 0 picks free ports)"
                ) from error
