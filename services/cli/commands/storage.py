"""`cortex pull` and `cortex rm`: models on the fleet's disks."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)

from cortex.v1 import model_pb2 as model
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import storage_service_pb2 as pb
from cortex.v1 import storage_service_pb2_grpc as storage_grpc
from services.backplane.errors import Reason
from services.backplane.rpc.calls import streaming
from services.cli.registry_client import (
    DEFAULT_REGISTRY,
    JsonOption,
    RegistryOption,
    ask,
    at_leader,
    run,
)
from services.cli.stored.disks import origin_meant, pull_source, stored_on, unfinished_on
from services.cli.tables import gib
from services.cli.terminal import complain, out, print_json_line

_AWAY: Final = Reason.REGISTRY_UNAVAILABLE
_SERVICE: Final = storage_grpc.FleetStorageServiceStub


def pull(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="hf:OWNER/NAME[@REVISION][:FILE or QUANTISATION], or a source as in models.toml.",
        ),
    ],
    registry: RegistryOption = DEFAULT_REGISTRY,
    neuron: Annotated[
        list[str] | None,
        typer.Option("--neuron", help="To this one; several are possible. Else to all that could"
                     " run it."),
    ] = None,
    *,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Read what is there, and fetch anew what is damaged."),
    ] = False,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Fetch a model's files to the fleet's disks. Ctrl-C ends it; the next pull goes on there."""
    try:
        where, quant = pull_source(source)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    request = pb.PullModelRequest(source=where, quant=quant, neurons=neuron or [], verify=verify)
    failed: list[str] = []
    here: set[str] = set()

    async def work(stub: Any) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(20),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
        )
        bars: dict[str, TaskID] = {}
        async with streaming(stub.PullModel(request), unavailable=_AWAY) as answers:
            with Progress(*columns, console=out, disable=as_json) as progress:
                async for answer in answers:
                    if as_json:
                        print_json_line(answer)
                    if answer.neuron not in bars:
                        bars[answer.neuron] = progress.add_task(answer.neuron, total=None)
                    _show(progress, bars[answer.neuron], answer)
                    if answer.problem:
                        failed.append(f"{answer.neuron}: {answer.problem}")
                    if answer.HasField("stored"):
                        here.add(answer.stored.model)

    run(lambda: at_leader(registry, work, service=_SERVICE), interrupted="given up; what has come"
        " stays, and the next pull goes on there")  # fmt: skip
    for name in () if as_json else sorted(here):
        out.print(f"it is offered as {name}: cortex chat --model {name}", soft_wrap=True)
    _end(failed)


def _show(progress: Progress, bar: TaskID, answer: pb.PullModelResponse) -> None:
    match answer.WhichOneof("event"):
        case "progress":
            told = answer.progress
            words = f"{answer.neuron}: {_PHASES.get(told.phase, 'fetches')}"
            total = told.bytes_total or None
            progress.update(bar, description=words, completed=told.bytes_done, total=total)
        case "stored":
            size = answer.stored.bytes
            words = f"{answer.neuron}: has {answer.stored.model}"
            progress.update(bar, description=words, completed=size, total=size)
        case _:
            progress.update(bar, description=f"{answer.neuron}: failed", total=1, completed=0)


_PHASES: Final = {
    model.LOAD_PHASE_RESOLVING: "looks for its files",
    model.LOAD_PHASE_DOWNLOADING: "fetches",
}


def remove(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="As in `cortex models --local`; hf:OWNER/NAME for what an ended pull has left.",
        ),
    ],
    registry: RegistryOption = DEFAULT_REGISTRY,
    neuron: Annotated[str, typer.Option("--neuron", help="Only on this neuron.")] = "",
    *,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Unload it first where it is loaded.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a model's files from the neurons that have fetched them; files of others stay."""
    try:
        name = origin_meant(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    request = pb.RemoveModelRequest(model=name, neuron=neuron, force=force)
    failed: list[str] = []

    async def main() -> None:
        if not yes:
            await _confirm(registry, name, neuron)
        await at_leader(registry, work, service=_SERVICE)

    async def work(stub: Any) -> None:
        async with streaming(stub.RemoveModel(request), unavailable=_AWAY) as answers:
            async for answer in answers:
                if as_json:
                    print_json_line(answer)
                if answer.problem:
                    failed.append(f"{answer.neuron}: {answer.problem}")
                elif not as_json:
                    out.print(f"{answer.neuron}: removed, {gib(answer.freed_bytes)} freed")

    run(main)
    _end(failed)


async def _confirm(registry: str, name: str, neuron: str) -> None:
    """Asks, having shown what would go; a model that lies nowhere is for the registry to tell."""
    fleet = await ask(registry, "GetFleet", op.GetFleetRequest())
    places = [row for row in stored_on(fleet) if name in row.names]
    places = [row for row in places if neuron in {"", row.neuron}]
    for row in places:
        whose = row.stored.origin or "put there by somebody: it stays"
        out.print(f"{row.neuron}: {gib(row.stored.bytes)}, {whose}", highlight=False)
    left = [one for one in unfinished_on(fleet) if one[1].origin == name]
    left = [one for one in left if neuron in {"", one[0]}]
    for where, one in left:
        out.print(f"{where}: {gib(one.bytes)}, not finished", highlight=False)
    if places or left:
        typer.confirm(f"Remove {name}?", abort=True)


def _end(failed: list[str]) -> None:
    for words in failed:
        complain(words)
    if failed:
        raise typer.Exit(1)
