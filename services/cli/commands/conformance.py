"""`cortex conformance`: which clients this build passed with, or how a gateway does now."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from services.cli.answers import first_model
from services.cli.options import DEFAULT_GATEWAY, GatewayOption
from services.cli.registry_client import JsonOption
from services.cli.sdk_checks.suite import CheckOutcome, Suite, Target
from services.cli.sse import ChatFailedError, GatewayClient
from services.cli.tables import table_of
from services.cli.terminal import fail, out, show
from services.gateway.conformance.report import ASPECTS, ConformanceReport, load, packaged

_SUITES: Final = ("openai_sdk", "anthropic_sdk")


def conformance(
    gateway: GatewayOption = DEFAULT_GATEWAY,
    model: Annotated[str, typer.Option("--model", "-m", help="Default: one that is loaded.")] = "",
    embedding: Annotated[str, typer.Option("--embedding", help="A model that embeds.")] = "",
    *,
    run: Annotated[
        bool, typer.Option("--run", help="Run the suites of the Python SDKs against the gateway.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show which clients this build passed with, or check a running gateway with the SDKs."""
    if not run:
        if as_json:
            out.print(packaged().decode(), soft_wrap=True)
        else:
            show(_table(load()))
        return
    chosen = model or _first_model(gateway)
    target = Target(url=gateway.rstrip("/"), model=chosen, embedding=embedding)
    failed = sum(_run(suite, target) for suite in _suites())
    if failed:
        fail(f"{failed} checks failed")


def _first_model(gateway: str) -> str:
    try:
        return first_model(GatewayClient(gateway))
    except ChatFailedError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{gateway}: {error} (is the gateway running? `cortex up` starts a whole fleet)")
    return ""


def _suites() -> Sequence[Suite]:
    found: list[Suite] = []
    for name in _SUITES:
        try:
            found.append(importlib.import_module(f"services.cli.sdk_checks.{name}").suite)
        except ModuleNotFoundError as error:
            fail(f"{error.name} is not installed here: pip install 'cortex-fleet[agent]'")
    return found


def _run(suite: Suite, target: Target) -> int:
    """Prints each check as it ends; returns how many failed."""
    failed = 0
    for outcome in suite.run(target):
        out.print(_words(outcome), soft_wrap=True)
        failed += bool(outcome.why)
    return failed


def _words(outcome: CheckOutcome) -> Text:
    mark = ("failed", "red") if outcome.why else ("passed", "green")
    line = f"  {outcome.client}, {outcome.aspect}, {outcome.check} ({outcome.seconds:.1f} s)"
    why = f"\n        {outcome.why}" if outcome.why else ""
    return Text.assemble(mark, line, why)


def _table(report: ConformanceReport) -> Table:
    title = f"Cortex {report.cortex} ({report.commit}), {report.date}, {report.model}"
    table = table_of("client", "version", *ASPECTS, title=title)
    for client in report.clients:
        cells: list[Text] = []
        for aspect in ASPECTS:
            passed, of = client.tally(aspect)
            colour = "green" if passed == of else "red"
            cell = client.cell(aspect)
            cells.append(Text(cell, style=colour if of else ""))
        table.add_row(client.client, client.version, *cells)
    return table
