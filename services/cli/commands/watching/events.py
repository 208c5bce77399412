"""`cortex events`: what the registry has done and seen."""

from __future__ import annotations

import asyncio
import collections
import datetime as dt
from typing import Annotated, Final

import typer
from rich.text import Text

from cortex.v1 import operator_service_pb2 as op
from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.calls import streaming
from services.cli.registry_client import (
    DEFAULT_REGISTRY,
    JsonOption,
    Operator,
    RegistryOption,
    at_leader,
    run,
)
from services.cli.terminal import complain, out, print_json_line, printable

_AWAY: Final = Reason.REGISTRY_UNAVAILABLE
_PAUSE_SECONDS: Final = 1.0
_REMEMBERED: Final = 1000  # by a registry
_STYLES: Final = {"failed": "red", "lost": "red", "detached": "yellow", "revoked": "yellow"}


def events(
    registry: RegistryOption = DEFAULT_REGISTRY,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with those that come.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what the registry has done and seen: loads, evictions, neurons that come and go.

    It remembers a thousand since it leads.
    """
    shown = Shown()

    async def work(stub: Operator) -> None:
        call = stub.WatchEvents(op.WatchEventsRequest(follow=follow))
        async with streaming(call, unavailable=_AWAY) as answers:
            async for answer in answers:
                if not shown.is_new(answer.event):
                    continue
                if as_json:
                    print_json_line(answer.event)
                else:
                    out.print(line_of(answer.event), soft_wrap=True)

    async def main() -> None:
        while True:
            try:
                await at_leader(registry, work)
                return
            except FleetError as error:  # another one takes the lead, and remembers its own
                if not (shown.has_any and follow and error.reason in {Reason.NOT_LEADER, _AWAY}):
                    raise
                complain(error.message)
            await asyncio.sleep(_PAUSE_SECONDS)

    run(main)


class Shown:
    """Remembers which events were printed: a registry sends all it has after a reconnect.

    Attributes:
        has_any: one was.
    """

    def __init__(self) -> None:
        self._last: collections.deque[tuple[int, int, int]] = collections.deque(maxlen=_REMEMBERED)
        self.has_any = False

    def is_new(self, event: op.FleetEvent) -> bool:
        """True the first time that an event is asked about, False from then on."""
        key = (event.number, event.at.seconds, event.at.nanos)  # terms begin to count anew
        if key in self._last:
            return False
        self._last.append(key)
        self.has_any = True
        return True


def line_of(event: op.FleetEvent) -> Text:
    """An event on one line."""
    at = dt.datetime.fromtimestamp(protobuf_time.nearest(event.at)).astimezone()
    style = _STYLES.get(event.kind.rpartition(".")[2], "")
    words = [event.model, f"on {event.neuron}" if event.neuron else ""]
    if event.HasField("elapsed"):
        words.append(f"after {protobuf_time.seconds(event.elapsed):.1f} s")
    told = printable(" ".join(filter(None, words)))
    detail = f"  ({printable(event.detail)})" if event.detail else ""
    return Text.assemble(
        (f"{at:%Y-%m-%d %H:%M:%S}  ", "dim"), (f"{event.kind:22}", style), f" {told}{detail}"
    )
