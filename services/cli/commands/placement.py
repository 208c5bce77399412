"""`cortex load`, `unload`, `pin`, `cordon`, `drain`, `explain`: what an operator does."""

from __future__ import annotations

import pathlib
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cortex.v1 import operator_service_pb2 as op
from services.backplane import protobuf_time
from services.backplane.errors import Reason
from services.backplane.rpc.calls import streaming
from services.cli.options import DEFAULT_GATEWAY, GatewayOption, KeyOption
from services.cli.prompts.explained import explained, prompt_table
from services.cli.registry_client import (
    DEFAULT_REGISTRY,
    JsonOption,
    Operator,
    RegistryOption,
    ask,
    at_leader,
    run,
)
from services.cli.sse import GatewayClient
from services.cli.tables import bar_of, explanation, gib, step_words
from services.cli.terminal import (
    fail,
    keep_waiting,
    out,
    print_json,
    print_json_line,
    show,
    waiting,
)

ModelArgument = Annotated[str, typer.Argument(help="Name or alias, as in `cortex models`.")]
NeuronArgument = Annotated[str, typer.Argument(help="Name, as in `cortex status`.")]
NeuronOption = Annotated[str, typer.Option("--neuron", help="Only on this neuron.")]
PatienceOption = Annotated[
    float, typer.Option("--timeout", help="Seconds that running requests may take to end.")
]
_AWAY = Reason.REGISTRY_UNAVAILABLE


def load(
    model: ModelArgument,
    registry: RegistryOption = DEFAULT_REGISTRY,
    neuron: NeuronOption = "",
    *,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Do not wait; the load goes on.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Load a model and show how far it is. Ctrl-C gives the load up where nobody else waits."""
    request = op.LoadModelRequest(model=model, neuron=neuron, attached=not detach)

    async def work(stub: Operator) -> None:
        columns = (
            BarColumn(20),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
        )
        async with streaming(stub.LoadModel(request), unavailable=_AWAY) as answers:
            with Progress(*columns, console=out, disable=as_json) as bar:
                task = bar.add_task(f"{model}: asks for a place", total=None)
                async for answer in answers:
                    if as_json:
                        print_json_line(answer)
                    completed, total = bar_of(answer.step)
                    words = f"{model}: {step_words(answer.step)}"
                    bar.update(task, description=words, completed=completed, total=total)
                    if detach:
                        return

    run(lambda: at_leader(registry, work), interrupted=f"{model}: given up")


def unload(
    model: ModelArgument,
    registry: RegistryOption = DEFAULT_REGISTRY,
    neuron: NeuronOption = "",
    timeout: PatienceOption = 60.0,
    *,
    as_json: JsonOption = False,
) -> None:
    """Unload a model once its work is done."""
    request = op.UnloadModelRequest(
        model=model, neuron=neuron, drain_timeout=protobuf_time.duration(timeout)
    )

    async def work(stub: Operator) -> None:
        freed = 0
        async with streaming(stub.UnloadModel(request), unavailable=_AWAY) as answers:
            with waiting(f"{model}: waits for running requests"):
                async for answer in answers:
                    if as_json:
                        print_json_line(answer)
                    freed = max(freed, answer.freed_bytes)
        if not as_json:
            out.print(f"{model}: unloaded, {gib(freed)} freed")

    run(lambda: at_leader(registry, work), interrupted=f"{model}: the unload goes on")


def pin(
    model: ModelArgument,
    registry: RegistryOption = DEFAULT_REGISTRY,
    neuron: NeuronOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Keep a model loaded, whatever the eviction policy thinks."""
    _tell(
        _ask(registry, "PinModel", op.PinModelRequest(model=model, neuron=neuron)),
        f"{model}: pinned",
        as_json=as_json,
    )


def unpin(
    model: ModelArgument,
    registry: RegistryOption = DEFAULT_REGISTRY,
    *,
    as_json: JsonOption = False,
) -> None:
    """End a pin."""
    _tell(
        _ask(registry, "UnpinModel", op.UnpinModelRequest(model=model)),
        f"{model}: no longer pinned",
        as_json=as_json,
    )


def cordon(
    neuron: NeuronArgument,
    registry: RegistryOption = DEFAULT_REGISTRY,
    *,
    as_json: JsonOption = False,
) -> None:
    """Keep new placements off a neuron; what it has goes on."""
    _tell(
        _ask(registry, "CordonNeuron", op.CordonNeuronRequest(neuron=neuron)),
        f"{neuron}: cordoned",
        as_json=as_json,
    )


def uncordon(
    neuron: NeuronArgument,
    registry: RegistryOption = DEFAULT_REGISTRY,
    *,
    as_json: JsonOption = False,
) -> None:
    """Let placements on a neuron again."""
    _tell(
        _ask(registry, "UncordonNeuron", op.UncordonNeuronRequest(neuron=neuron)),
        f"{neuron}: takes placements again",
        as_json=as_json,
    )


def drain(
    neuron: NeuronArgument,
    registry: RegistryOption = DEFAULT_REGISTRY,
    timeout: PatienceOption = 300.0,
    *,
    as_json: JsonOption = False,
) -> None:
    """Cordon a neuron and unload all that it holds, after its work is done."""
    request = op.DrainNeuronRequest(neuron=neuron, timeout=protobuf_time.duration(timeout))

    async def work(stub: Operator) -> None:
        async with streaming(stub.DrainNeuron(request), unavailable=_AWAY) as answers:
            with waiting(f"{neuron}: draining") as status:
                async for left in answers:
                    if as_json:
                        print_json_line(left)
                    keep_waiting(
                        status,
                        f"{neuron}: {left.instances_left} models,"
                        f" {left.active_requests_left} requests left",
                    )
        if not as_json:
            out.print(f"{neuron}: drained and cordoned")

    run(
        lambda: at_leader(registry, work),
        interrupted=f"{neuron}: stays cordoned; its unloads go on",
    )


def explain(
    model: Annotated[
        str, typer.Argument(help="Name or alias, as in `cortex models`; none with --request.")
    ] = "",
    registry: RegistryOption = DEFAULT_REGISTRY,
    *,
    request: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--request",
            help="Body of a chat (OpenAI or Anthropic): what of it each instance would have to "
            "read, and which bytes part it from what is held.",
        ),
    ] = None,
    gateway: GatewayOption = DEFAULT_GATEWAY,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Say where a model would go now, and why; or what of a request was read. Changes nothing."""
    if request is not None:
        told = explained(request, GatewayClient(gateway, api_key=api_key), gateway)
        if as_json:
            out.print_json(data=told)
        else:
            show(prompt_table(told))
        return
    if not model:
        fail("name a model, or a file with --request")
    answer = _ask(registry, "ExplainPlacement", op.ExplainPlacementRequest(model=model))
    if as_json:
        print_json(answer)
    else:
        show(explanation(answer))


def _tell(answer: Any, words: str, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        out.print(words)


def _ask(registry: str, method: str, request: Any) -> Any:
    answers: list[Any] = []

    async def main() -> None:
        answers.append(await ask(registry, method, request))

    run(main)
    return answers[0]
