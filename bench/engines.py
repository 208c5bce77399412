"""`python -m bench.engines`: the whole stack beside llama.cpp's own server, of the same wheel.

`cortex up` (gateway, registry, neuron, worker) and xllamacpp's `Server` (llama-server in a process
of its own) serve the same SmolLM2 over HTTP, with as many threads and places and the same context.
In each round both answer the same requests, one after the other; the other one waits meanwhile.
All processes may run on every core, as they do where nobody pins them.
Tokens per second as the client counts them, and per CPU second of all processes of a side, which
neighbours on the machine hardly change; medians over the rounds. Behind it, what a token costs each
process, in milliseconds of CPU: the worker's is the engine, the rest is what the stack adds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import pathlib
import re
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

import httpx
import psutil

from bench.processes import Process, ending
from tests.doubles.processes import free_port

STREAMS = (1, 4, 16)
WANTED = {1: 1.0, 4: 1.1, 16: 1.1}
"""Least share of what llama-server does."""
_TOKENS = 48
_CONTEXT = 512
_PLACES = max(STREAMS)
_PATIENCE_SECONDS = 300.0
_LEAST_TOLD = 0.01
_LISTENS = re.compile(r"gateway\.listen = (?P<address>127\.0\.0\.1:[1-9]\d*)")
_SERVER = """
import sys, threading
import xllamacpp

path, port, threads, places, context = sys.argv[1], *map(int, sys.argv[2:])
asked = xllamacpp.CommonParams()
asked.model.path = path
asked.n_ctx, asked.n_parallel = context * places, places
asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = threads
asked.fit_params = False
asked.hostnames, asked.port = ["127.0.0.1"], port
server = xllamacpp.Server(asked)
print("ready", flush=True)
threading.Event().wait()
"""
_SETTINGS = """
[neuron]
threads = {threads}
max_sequences = {places}
max_context_tokens = {context}
[log]
level = "warning"
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared."""

    url: str
    process: Process

    def cpu_seconds(self) -> dict[str, float]:
        """So far, by the name of the program: `gateway`, `worker`, …."""
        spent = defaultdict[str, float](float)
        for pid in self.process.pids():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                used = process.cpu_times()
                spent[_program(process.cmdline())] += used.user + used.system
        return spent


@dataclasses.dataclass(frozen=True, slots=True)
class Figures:
    """What one side did in one round with so many streams."""

    per_second: float
    per_cpu_second: float
    first_token_seconds: float
    cpu_milliseconds: dict[str, float]
    """Of a token, by program."""


def main() -> int:
    """Prints one row for each number of streams. Returns 1 where a share is less than wanted."""
    parser = argparse.ArgumentParser(prog="python -m bench.engines")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="cortex-bench-") as name,
        ending([]) as processes,
    ):
        folder = pathlib.Path(name)
        ours = _ours(folder, asked.threads)
        processes.append(ours.process)
        model = next((folder / "data").rglob("*.gguf"))
        theirs = _theirs(folder, model, asked.threads)
        processes.append(theirs.process)
        rows = {streams: list(_rounds(ours, theirs, streams, asked.rounds)) for streams in STREAMS}
    names = (
        "streams",
        "llama-server",
        "cortex",
        "share",
        "per CPU second",
        "its first token, ms",
        "ours",
        "wanted",
    )
    print(f"| {' | '.join(names)} |")
    print("|---|---|---|---|---|---|---|---|")
    worst = max(_row(streams, pairs) for streams, pairs in rows.items())
    print("\n| streams | CPU of a token, ms: llama-server | cortex |\n|---|---|---|")
    for streams, pairs in rows.items():
        ours_of, theirs_of = zip(*pairs, strict=True)
        print(f"| {streams} | {_costs(theirs_of)} | {_costs(ours_of)} |")
    return worst


def _rounds(
    ours: Side, theirs: Side, streams: int, rounds: int
) -> Iterator[tuple[Figures, Figures]]:
    for turn in range(rounds + 1):
        sides = (ours, theirs) if turn % 2 else (theirs, ours)
        made = {id(side): asyncio.run(_measured(side, streams, turn)) for side in sides}
        if turn:  # the first warms up
            yield made[id(ours)], made[id(theirs)]


def _row(streams: int, pairs: list[tuple[Figures, Figures]]) -> int:
    def median(values: Iterator[float]) -> float:
        return statistics.median(values)

    share = median(ours.per_second / theirs.per_second for ours, theirs in pairs)
    by_cpu = median(ours.per_cpu_second / theirs.per_cpu_second for ours, theirs in pairs)
    cells = (
        f"{median(theirs.per_second for _, theirs in pairs):.1f}",
        f"{median(ours.per_second for ours, _ in pairs):.1f}",
        f"{share:.2f}",
        f"{by_cpu:.2f}",
        f"{median(theirs.first_token_seconds for _, theirs in pairs) * 1000:.0f}",
        f"{median(ours.first_token_seconds for ours, _ in pairs) * 1000:.0f}",
        f"{WANTED[streams]:.1f}",
    )
    print(f"| {streams} | {' | '.join(cells)} |", flush=True)
    return int(share < WANTED[streams])


def _costs(figures: Sequence[Figures]) -> str:
    """Medians by program, the dearest first."""
    names = {name for one in figures for name in one.cpu_milliseconds}
    costs = {
        name: statistics.median(one.cpu_milliseconds.get(name, 0.0) for one in figures)
        for name in names
    }
    dearest = sorted(costs.items(), key=lambda each: -each[1])
    return ", ".join(f"{name} {cost:.2f}" for name, cost in dearest if cost >= _LEAST_TOLD)


def _program(command: Sequence[str]) -> str:
    """`gateway` of `python -m services.cli gateway`, `worker` of `-m services.neuron.worker`."""
    if "services.cli" in command:
        return command[command.index("services.cli") + 1]
    return next((word.split(".")[-1] for word in command if word.startswith("services.")), "server")


async def _measured(side: Side, streams: int, turn: int) -> Figures:
    cpu, since = side.cpu_seconds(), time.monotonic()
    async with httpx.AsyncClient(base_url=side.url, timeout=_PATIENCE_SECONDS) as client:
        each = await asyncio.gather(*(_stream(client, turn * 100 + n) for n in range(streams)))
    seconds, spent = time.monotonic() - since, side.cpu_seconds()
    tokens = sum(count for count, _ in each)
    first = statistics.median(at - since for _, at in each)
    costs = {n: (used - cpu.get(n, 0.0)) / tokens * 1000 for n, used in spent.items()}
    return Figures(tokens / seconds, 1000 / sum(costs.values()), first, costs)


async def _stream(client: httpx.AsyncClient, number: int) -> tuple[int, float]:
    """Tokens of one answer, and when its first text came."""
    body = {
        "model": "smollm2-135m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": _TOKENS,
        "messages": [{"role": "user", "content": f"Tell a long story about the number {number}."}],
    }
    first, tokens = 0.0, 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not first and '"content":"' in line.replace('": "', '":"'):
                first = time.monotonic()
            if '"completion_tokens"' in line:
                _, _, rest = line.partition('"completion_tokens":')
                tokens = int(rest.lstrip().split(",")[0].split("}")[0])
    return tokens, first


def _ours(folder: pathlib.Path, threads: int) -> Side:
    settings, log = folder / "cortex.toml", folder / "cortex.log"
    settings.write_text(_SETTINGS.format(threads=threads, places=_PLACES, context=_CONTEXT))
    command = [sys.executable, "-m", "services.cli", "up", "--config", str(settings)]
    command += ["--data-dir", str(folder / "data"), "--port", "0"]
    process = Process(command, log=log)
    until = time.monotonic() + _PATIENCE_SECONDS
    while (found := _LISTENS.search(log.read_text())) is None:
        if time.monotonic() > until or not process.running:
            raise SystemExit(f"cortex did not come up: {process.last_words()}")
        time.sleep(0.5)
    side = Side(f"http://{found['address']}", process)
    _wait(side)
    return side


def _theirs(folder: pathlib.Path, model: pathlib.Path, threads: int) -> Side:
    port, log = free_port(), folder / "llama-server.log"
    numbers = (port, threads, _PLACES, _CONTEXT)
    command = [sys.executable, "-c", _SERVER, str(model), *map(str, numbers)]
    side = Side(f"http://127.0.0.1:{port}", Process(command, log=log))
    _wait(side)
    return side


def _wait(side: Side) -> None:
    """Waits until one answer was given."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        with contextlib.suppress(httpx.HTTPError):
            asyncio.run(_measured(side, 1, 0))
            return
        if time.monotonic() > until or not side.process.running:
            raise SystemExit(f"it did not come up: {side.process.last_words()}")
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
