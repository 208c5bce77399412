"""`python -m bench.codec`: what the HTTP/1.1 codec costs, on an app that does nothing.

Both codecs serve the same trivial ASGI app under Hypercorn and uvloop, on one core, in
interleaved rounds. The difference is the codec and nothing else.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from starlette.types import Receive, Scope, Send

from bench.load import LoadGenerator
from bench.processes import TARGET_CPU, Process, ending
from bench.workloads import WORKLOADS
from services.gateway.server import Http1Codec, HttpServer, ServerOptions, new_event_loop
from tests.doubles.processes import free_port

_BODY = b'{"id":"chatcmpl-0","choices":[{"message":{"content":"' + b" tok" * 16 + b'"}}]}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]
_CODECS: tuple[Http1Codec, ...] = ("fast", "stock")


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


def _serve(codec: Http1Codec, port: int) -> None:
    async def main() -> None:
        options = ServerOptions(listen=f"127.0.0.1:{port}", http1_codec=codec)
        await HttpServer(_app, options).serve(asyncio.Event().wait)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())


def _compare(rounds: int, seconds: float, cache: Path) -> None:
    load = LoadGenerator(cache)
    ports = {codec: free_port() for codec in _CODECS}
    with ending([]) as processes:
        for codec in _CODECS:
            command = [sys.executable, "-m", "bench.codec", "--serve", codec]
            command += ["--port", str(ports[codec])]
            log = cache / f"codec-{codec}.log"
            processes.append(Process(command, cpu=TARGET_CPU, log=log))
            processes[-1].wait_for_port(ports[codec])
        print("| workload | fast us/request | stock us/request | stock - fast | req/s fast/stock |")
        print("|---|---|---|---|---|")
        for name in ("NS1", "NS8", "NS64"):
            workload = WORKLOADS[name]
            cost: dict[str, list[float]] = {codec: [] for codec in _CODECS}
            rate: dict[str, list[float]] = {codec: [] for codec in _CODECS}
            for turn in range(rounds):
                pairs = list(zip(_CODECS, processes, strict=True))
                for codec, process in pairs if turn % 2 else reversed(pairs):
                    sample = load.run(
                        workload, port=ports[codec], pids=process.pids(), seconds=seconds
                    )
                    cost[codec].append(sample.cpu_per_unit(workload))
                    rate[codec].append(sample.requests / sample.seconds)
            fast, stock = (statistics.median(cost[codec]) for codec in _CODECS)
            rates = "/".join(f"{statistics.median(rate[codec]):.0f}" for codec in _CODECS)
            print(f"| {name} | {fast:.0f} | {stock:.0f} | {stock - fast:.0f} | {rates} |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves or compares, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "cortex-bench")
    parser.add_argument("--serve", choices=_CODECS)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.serve:
        _serve(options.serve, options.port)
    else:
        _compare(options.rounds, options.seconds, options.cache)


if __name__ == "__main__":
    main()
