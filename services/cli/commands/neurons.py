"""`cortex neurons`: who is let into the fleet as a neuron, and who no longer."""

from __future__ import annotations

from typing import Annotated

import typer

from cortex.v1 import operator_service_pb2 as op
from services.backplane import protobuf_time
from services.cli.registry_client import DEFAULT_REGISTRY, JsonOption, RegistryOption, ask, run
from services.cli.tables import waiting_table
from services.cli.terminal import out, print_json, show

app = typer.Typer(
    help="Let hosts in as neurons by a token, and take their certificates back.",
    no_args_is_help=True,
)


@app.command()
def token(
    neuron: Annotated[str, typer.Argument(help="The name that the host gets.")],
    registry: RegistryOption = DEFAULT_REGISTRY,
    *,
    minutes: Annotated[
        float, typer.Option(min=0.1, max=1440, help="How long it may be used.")
    ] = 15.0,
) -> None:
    """Print a token by which one host joins as a neuron, once: `cortex join` there."""

    async def main() -> None:
        request = op.CreateJoinTokenRequest(
            neuron=neuron, lifetime=protobuf_time.duration(minutes * 60)
        )
        answer = await ask(registry, "CreateJoinToken", request)
        out.print(answer.token, soft_wrap=True)

    run(main)


@app.command()
def waiting(registry: RegistryOption = DEFAULT_REGISTRY, *, as_json: JsonOption = False) -> None:
    """List hosts with a good token that wait to be approved."""

    async def main() -> None:
        answer = await ask(registry, "ListWaitingHosts", op.ListWaitingHostsRequest())
        if as_json:
            print_json(answer)
        elif answer.hosts:
            show(waiting_table(answer.hosts))
        else:
            out.print("No host waits.")

    run(main)


@app.command()
def approve(
    neuron: Annotated[str, typer.Argument(help="The name that the host gets.")],
    registry: RegistryOption = DEFAULT_REGISTRY,
    *,
    key: Annotated[
        str,
        typer.Option(
            help="How its key begins, as `cortex join` printed it there; needed where several wait."
        ),
    ] = "",
) -> None:
    """Let a host join that waits: it gets its certificate within seconds."""

    async def main() -> None:
        request = op.ApproveNeuronRequest(neuron=neuron, key=key)
        host = (await ask(registry, "ApproveNeuron", request)).host
        out.print(f"{neuron} may join, with the key {host.key}.", soft_wrap=True)

    run(main)


@app.command()
def revoke(
    neuron: Annotated[str, typer.Argument(help="The neuron's name.")],
    registry: RegistryOption = DEFAULT_REGISTRY,
) -> None:
    """Refuse a neuron's certificates from now on, everywhere.

    Its tokens go too, and hosts that wait to be approved with them.
    """

    async def main() -> None:
        answer = await ask(registry, "RevokeNeuron", op.RevokeNeuronRequest(neuron=neuron))
        serials = ", ".join(answer.serials) or "none; its tokens are gone"
        out.print(f"{neuron} is out of the fleet; refused: {serials}", soft_wrap=True)

    run(main)
