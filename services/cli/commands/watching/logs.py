"""`cortex logs`: what the services of `cortex up` have written."""

from __future__ import annotations

import collections
import os
import pathlib
import time
from typing import Annotated, Final

import typer

from services.cli.local_fleet import default_data_dir
from services.cli.logs.reading import Line, LogFollower, files_of, lines_of, words
from services.cli.settings_files.sections import Service
from services.cli.terminal import fail, printable

_LOOK_SECONDS: Final = 0.25
_UNIT: Final = "journalctl -o cat -u 'cortex-*'"


def logs(
    service: Annotated[
        list[Service] | None, typer.Argument(help="Whose; all of them, if none is named.")
    ] = None,
    *,
    request: Annotated[
        str, typer.Option("--request", "-r", help="Only lines of this request (`x-request-id`).")
    ] = "",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="So many of the last; 0: all.")
    ] = 200,
    data_dir: Annotated[
        pathlib.Path | None, typer.Option("--data-dir", help="As for `cortex up`.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The lines as they were written.")
    ] = False,
) -> None:
    """Print what the services of `cortex up` have written, in the order of time."""
    folder = (data_dir or default_data_dir(os.environ)) / "logs"
    names = service or list(Service)
    try:
        are_any = any(files_of(folder, name) for name in names)
    except PermissionError as error:
        fail(f"{folder}: cannot be read: {error.strerror}")
    if not are_any:
        fail(f"there are no logs in {folder}; under systemd: {_UNIT}")

    def show(line: Line) -> None:
        # what a client has sent, such as a model's name, stands in these lines
        typer.echo(line.text if as_json else printable(words(line), keep="\t"))

    try:
        followers = [LogFollower(folder, name) for name in names] if follow else []
        for line in collections.deque(lines_of(folder, names, request), maxlen=lines or None):
            show(line)
        while followers:
            new = [line for each in followers for line in each.new_lines()]
            for line in sorted(new, key=lambda line: line.timestamp):
                if request in line.text:
                    show(line)
            time.sleep(_LOOK_SECONDS)
    except PermissionError as error:
        fail(f"{error.filename}: cannot be read: {error.strerror}")
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
