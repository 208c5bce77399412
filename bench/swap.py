"""`python -m bench.swap MODEL.gguf`: a swap of page-cached models, beside what the library takes.

A whole fleet (`cortex up`) whose neuron has room for one of two models of the same size. They are
asked for in turn, so that each request evicts the other one: from asking to the first token.
Between two swaps the library loads the same file in a process of its own, which has it imported:
until its first token. Wall time, both in the same run, in turn; medians. Where the time of a swap
went is told by the neuron's and the registry's own log lines.

With `--room` nobody has to go: there is room for both, one stays, so that its worker runs, and the
other is unloaded (`cortex unload`) before it is asked for again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any

from services.neuron.engine_api.events import Delta
from services.neuron.engine_api.model import LoadPlan
from services.neuron.engine_api.task import Prompt, SamplingParams, StopParams, Task
from services.neuron.engines.llamacpp.engine import LlamaCppEngine
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.locate import locate

_START_SECONDS = 180.0
_CONTEXT = 1024
_NAMES = ("one", "two")
_PROMPT = "Hi"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.swap", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--swaps", type=int, default=10)
    parser.add_argument("--room", action="store_true", help="for both: a load without a victim")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cortex-swap-") as folder:
        data = Path(folder)
        _lay_out(data, Path(asked.model))
        with _fleet(data, rooms=2 if asked.room else 1) as fleet:
            _ask(fleet.url, "one")
            engine = LlamaCppEngine(Library(locate("")))
            swaps, loads = list[float](), list[float]()
            for number in range(1, asked.swaps + 1):
                name = _NAMES[1 if asked.room else number % 2]
                swaps.append(_ask(fleet.url, name))
                loads.append(_load(engine, data / "models" / f"{name}.gguf"))
                if asked.room:
                    _unload(fleet, name)
        _tell("load" if asked.room else "swap", swaps, loads)
        _tell_parts(data)


def _lay_out(data: Path, model: Path) -> None:
    (data / "models").mkdir()
    size = model.stat().st_size
    for name in _NAMES:
        shutil.copy(model, data / "models" / f"{name}.gguf")
    (data / "models.toml").write_text(
        "\n".join(
            f'[[models]]\nid = "{name}"\nsource = "path:{data}/models/{name}.gguf"\n'
            f'context = {_CONTEXT}\nlimits = {{ sequences = 1 }}\nmemory = "{size * 2 >> 20}MiB"\n'
            for name in _NAMES
        )
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Fleet:
    """Addresses of its gateway and of its registry."""

    url: str
    registry: str


@contextlib.contextmanager
def _fleet(data: Path, *, rooms: int) -> Generator[_Fleet]:
    """A fleet with room for so many models."""
    size = (data / "models" / "one.gguf").stat().st_size
    environment = {
        **os.environ,
        "COLUMNS": "200",
        "CORTEX_NEURON__MEMORY_BUDGET_BYTES": str(size * 3 * rooms),
        "CORTEX_EVICTION__MINIMUM_RESIDENCY_SECONDS": "0s",
    }
    command = [sys.executable, "-m", "services.cli", "up", "--port", "0", "--model", "one"]
    with (data / "up.log").open("w+") as output:
        process = subprocess.Popen(
            [*command, "--data-dir", str(data)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            until = time.monotonic() + _START_SECONDS
            while (found := re.search(r"ANTHROPIC_BASE_URL=(\S+)", _read(data))) is None:
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(_read(data))
                time.sleep(0.1)
            registry = re.search(r"--registry (\S+)", _read(data))
            assert registry is not None
            yield _Fleet(found[1], registry[1])
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def _unload(fleet: _Fleet, model: str) -> None:
    command = [sys.executable, "-m", "services.cli", "unload", model]
    subprocess.run([*command, "--registry", fleet.registry], check=True, stdout=subprocess.DEVNULL)


def _read(data: Path) -> str:
    return (data / "up.log").read_text(errors="replace")


def _ask(url: str, model: str) -> float:
    """Seconds to the first token of an answer."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": _PROMPT}],
        "max_tokens": 2,
        "stream": True,
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    began, first = time.perf_counter(), 0.0
    with urllib.request.urlopen(request, timeout=120) as answer:
        for line in answer:
            if line.startswith(b"data: {") and not first:
                delta: Any = json.loads(line[6:])["choices"][0]["delta"]
                first = time.perf_counter() - began if delta.get("content") else 0.0
    return first


def _load(engine: LlamaCppEngine, path: Path) -> float:
    """Seconds that the library takes from the file to a first token."""
    plan = LoadPlan("i", "llamacpp", str(path), max_sequences=1, max_context_tokens=_CONTEXT)
    began = time.perf_counter()
    steps = engine.load(plan)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            model = done.value
            break
    stop = StopParams(max_tokens=1, ignore_eos=True)
    model.submit(Task(1, "i", Prompt(), SamplingParams(temperature=0), stop), list(range(100, 130)))
    while not any(isinstance(event, Delta) for event in model.step()):
        pass
    seconds = time.perf_counter() - began
    model.close()
    return seconds


def _tell(what: str, ours: list[float], loads: list[float]) -> None:
    our, load = statistics.median(ours), statistics.median(loads)
    pairs = statistics.median(mine / theirs for mine, theirs in zip(ours, loads, strict=True))
    print(f"{what}, request to first token   {our:6.2f} s (worst {max(ours):.2f})")
    print(f"the library's own load         {load:6.2f} s (worst {max(loads):.2f})")
    print(f"ratio                          {our / load:6.2f} (of pairs {pairs:.2f})")


def _tell_parts(data: Path) -> None:
    """Medians of what the fleet's own log says of a swap."""
    seconds: dict[str, list[float]] = {}
    for log in (data / "logs").glob("*.log"):
        for line in log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                told: Any = json.loads(line)
                if isinstance(told, dict) and "elapsed_ms" in told and "method" in told:
                    name = f"{log.stem}: {str(told['method']).rpartition('/')[2]}"
                    seconds.setdefault(name, []).append(float(told["elapsed_ms"]) / 1000)
    for name, values in sorted(seconds.items()):
        if name.endswith(("Load", "Unload", "EnsureModel")):
            print(f"  {name:28} {statistics.median(values):6.2f} s")


if __name__ == "__main__":
    main()
