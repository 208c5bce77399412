"""`python -m bench.soak`: an hour of agent-like traffic, and whether any process grows.

A registry, a gateway and two neurons with scripted models, each a process of its own. Clients by
the OpenAI and Anthropic SDKs hold conversations that grow with every turn, streamed and whole, and
check every word; others leave in the middle of an answer, or ask what is refused. The memory of
every process is sampled. A table at the end; exit code 1 where one grew by more than two per cent
behind the warm-up (the first three tenths), or a client got anything but its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path

import httpx

from bench.conditions import Conditions
from bench.soak.memory import Course, Watch
from bench.traffic.clients import SdkClients
from bench.traffic.exchange import Seen
from bench.traffic.load import MODELS, Habits, Load
from tests.system.fleet.models import build_models
from tests.system.fleet.processes import Fleet

_KEY = "sk-soak"
_KEYS = f'[[auth.keys]]\nname = "soak"\nkey = "{_KEY}"\n'
_MOST_GROWTH = 0.02
_SAMPLE_SECONDS = 5.0
_PATIENCE_SECONDS = 300.0
_AGENTS = Habits(tokens=(20, 300), pause_seconds=1.0, turns=12, files=600)


def main() -> int:
    """Runs and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--logs", type=Path, help="keep logs and settings here")
    asked = parser.parse_args()
    conditions = Conditions(python=sys.executable)
    with tempfile.TemporaryDirectory(prefix="cortex-soak-") as spare:
        folder: Path = asked.logs or Path(spare)
        folder.mkdir(parents=True, exist_ok=True)
        courses, seen = asyncio.run(_run(asked, folder))
    print(_table(courses))
    counts = {outcome.value: count for outcome, count in seen.counts().items()}
    print(f"\nRequests: {counts}.")
    print(conditions.describe(rounds=1, seconds=asked.minutes * 60))
    for one in seen.not_whole():
        print(one, file=sys.stderr)
    has_grown = any(one.growth(one.proportional) > _MOST_GROWTH for one in courses)
    return int(has_grown or bool(seen.not_whole()))


async def _run(asked: argparse.Namespace, folder: Path) -> tuple[list[Course], Seen]:
    fleet = await asyncio.to_thread(_start, folder)
    try:
        async with SdkClients(fleet.url, key=_KEY, patience_seconds=_PATIENCE_SECONDS) as clients:
            load = Load(clients, _AGENTS)
            watch = Watch(lambda: {name: one.process.pid for name, one in fleet.services.items()})
            await load.load_models()  # before the clock runs
            beside = [
                asyncio.create_task(watch.run(_SAMPLE_SECONDS)),
                asyncio.create_task(_leave(fleet.url)),
                asyncio.create_task(_be_refused(fleet.url)),
            ]
            until = time.monotonic() + asked.minutes * 60
            async with load.asking(asked.clients):
                while time.monotonic() < until:
                    await asyncio.sleep(_SAMPLE_SECONDS)
                    _raise_what_failed(beside)
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            return watch.long_lived(), load.seen
    finally:
        await asyncio.to_thread(fleet.end)


def _start(folder: Path) -> Fleet:
    weights = folder / "weights"
    weights.mkdir()
    fleet = Fleet(folder, build_models(weights, MODELS))
    try:
        fleet.add_registry()
        for name in ("left", "right"):
            fleet.add_neuron(name)
        fleet.add_gateway(settings=_KEYS)
        fleet.wait("left", "right")
    except BaseException:
        fleet.end()
        raise
    return fleet


def _raise_what_failed(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()


async def _leave(url: str) -> None:
    """Clients that go away in the middle of an answer."""
    chance = random.Random(1)
    async with _client(url) as client:
        while True:
            body = _body(max_tokens=2000, stream=True)
            with contextlib.suppress(httpx.TimeoutException):
                async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                    async for _ in response.aiter_lines():
                        if chance.random() < 0.02:
                            break
            await asyncio.sleep(chance.uniform(0.5, 2.0))


async def _be_refused(url: str) -> None:
    """Clients that ask for what is not there, or may not be."""
    chance = random.Random(2)
    bodies = (_body(model="nobody"), _body(max_tokens=-1), _body(messages=[]), {"model": 1})
    async with _client(url) as client:
        while True:
            answer = await client.post("/v1/chat/completions", json=chance.choice(bodies))
            if answer.is_success:
                raise AssertionError(answer.text)
            await asyncio.sleep(chance.uniform(0.5, 2.0))


def _client(url: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {_KEY}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=_PATIENCE_SECONDS)


def _body(**more: object) -> dict[str, object]:
    return {"model": "alpha", "messages": [{"role": "user", "content": "Go"}], **more}


def _table(courses: list[Course]) -> str:
    heads = "| process | PSS at the start, MiB | behind the warm-up | at the end | most"
    lines = [f"{heads} | growth of PSS | of RSS | samples |", "|---" * 8 + "|"]
    return "\n".join([*lines, *map(str, courses)])


if __name__ == "__main__":
    sys.exit(main())
