"""`python -m bench.stored_swaps`: two hundred real swaps, and the store of caches all the while.

A fleet of real processes whose neuron has room for one of two scripted models, which are asked for
in turn: each request loads one and evicts the other, whose caches are saved within bounds that are
too small for all of them. Conversations of two principals go on behind the swaps; every word is
checked. What lies in both tiers is looked at a hundred times a second. Exit code 1 where a tier
held more than its bound, an answer was not the model's, or nothing was restored.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.conditions import Conditions
from bench.traffic.load import MODELS, question
from tests.system.fleet.models import build_models
from tests.system.fleet.processes import Fleet

_PRINCIPALS = ("ann", "bob")
_KEYS = "".join(f'[[auth.keys]]\nname = "{one}"\nkey = "sk-{one}"\n' for one in _PRINCIPALS)
_ROOM_FOR_ONE = "memory_budget_bytes = 120_000_000"
_AT_ONCE = "[eviction]\nminimum_residency_seconds = 0.0\nhandover_seconds = 0.0\n"
_TALKS = 6  # of each model; old ones are left for new ones
_LOOK_SECONDS = 0.01
_MEMORY = "/dev/shm"
_LETTERS = "abcdefghij"


@dataclass(slots=True)
class Tier:
    """A folder of the store, its bound, and the most that it was seen to hold."""

    folder: Path
    bound: int
    most: int = 0

    def look(self) -> None:
        """Sums what lies there now."""
        held = 0
        for path in self.folder.rglob("*.kv"):
            with suppress(FileNotFoundError):
                held += path.stat().st_size
        self.most = max(self.most, held)


@dataclass(slots=True)
class Talk:
    """A conversation of one principal with one model."""

    principal: str
    turns: list[dict[str, str]]


@dataclass(slots=True)
class Counts:
    """What the requests behind a swap got."""

    asked: int = 0
    restored: int = 0
    prompt_tokens: int = 0
    restored_tokens: int = 0
    wrong: list[str] = field(default_factory=list)


class Swaps:
    """Asks for the models in turn."""

    def __init__(self, url: str, seed: int) -> None:
        """Asks nothing yet."""
        self._client = httpx.Client(base_url=url, timeout=300.0)
        self._dice = random.Random(seed)
        self._talks: dict[str, list[Talk]] = {model: [] for model in MODELS}
        self.seen = Counts()

    def run(self, swaps: int, seconds: float) -> None:
        """One request for each swap, a second one while the model is there."""
        ends_at = time.monotonic() + seconds
        for number in range(swaps + 1):  # the first one evicts nobody
            if time.monotonic() > ends_at:
                return
            model = MODELS[number % len(MODELS)]
            cached, prompt = self._ask(model, self._old_talk(model))
            self.seen.asked += 1
            self.seen.prompt_tokens += prompt
            self.seen.restored += bool(cached)
            self.seen.restored_tokens += cached
            self._ask(model, self._new_talk(model))

    def _old_talk(self, model: str) -> Talk:
        talks = self._talks[model]
        return self._dice.choice(talks) if talks else self._new_talk(model)

    def _new_talk(self, model: str) -> Talk:
        said = "".join(self._dice.choices(_LETTERS, k=self._dice.randint(200, 1200)))
        talk = Talk(self._dice.choice(_PRINCIPALS), [{"role": "user", "content": said}])
        self._talks[model] = [*self._talks[model], talk][-_TALKS:]
        return talk

    def _ask(self, model: str, talk: Talk) -> tuple[int, int]:
        """Asks, and adds the answer. Returns: tokens that were cached, of the prompt."""
        wanted = question(model, self._dice.randint(5, 40))
        body = {
            "model": model,
            "messages": talk.turns,
            "max_tokens": wanted.tokens,
            "temperature": 0,
        }
        headers = {"authorization": f"Bearer sk-{talk.principal}"}
        response = self._client.post("/v1/chat/completions", json=body, headers=headers)
        answer: dict[str, Any] = response.json()
        if response.status_code != httpx.codes.OK:
            self.seen.wrong.append(f"{response.status_code}: {answer}")
            return 0, 0
        text = answer["choices"][0]["message"]["content"]
        if text != wanted.expected:
            self.seen.wrong.append(f"{text!r} instead of {wanted.expected!r}")
        talk.turns += [
            {"role": "assistant", "content": text},
            {"role": "user", "content": "Go on"},
        ]
        usage = answer["usage"]
        return (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0), usage[
            "prompt_tokens"
        ]


def watched(tiers: list[Tier], is_over: threading.Event) -> None:
    """Looks at the tiers until it is over."""
    while not is_over.wait(_LOOK_SECONDS):
        for tier in tiers:
            tier.look()


def main() -> int:
    """Runs and tells; 1 where a bound was broken or an answer was wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.stored_swaps", description=__doc__)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0, help="at most")
    parser.add_argument("--memory-kib", type=int, default=1024, help="bound of the tier in memory")
    parser.add_argument("--disk-kib", type=int, default=2048, help="bound of the tier on disk")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    conditions, began = Conditions(python=sys.executable), time.monotonic()
    shm = _MEMORY if Path(_MEMORY).is_dir() else None
    with (
        tempfile.TemporaryDirectory(prefix="cortex-stored-") as folder,
        tempfile.TemporaryDirectory(prefix="cortex-stored-", dir=shm) as memory,
    ):
        tiers = [
            Tier(Path(memory), asked.memory_kib << 10),
            Tier(Path(folder) / "disk", asked.disk_kib << 10),
        ]
        done, seen = _run(Path(folder), tiers, asked)
    seconds = time.monotonic() - began
    print(f"{done} swaps in {seconds:.0f} s")
    for name, tier in zip(("memory", "disk"), tiers, strict=True):
        print(f"{name}: most {tier.most >> 10} of {tier.bound >> 10} KiB")
    print(
        f"behind a swap: {seen.restored} of {seen.asked} requests found their cache, "
        f"{seen.restored_tokens} of {seen.prompt_tokens} prompt tokens; {len(seen.wrong)} wrong"
    )
    print(conditions.describe(rounds=1, seconds=seconds))
    print("\n".join(seen.wrong[:10]), file=sys.stderr)
    is_broken = any(tier.most > tier.bound for tier in tiers) or not seen.restored
    return int(is_broken or bool(seen.wrong) or done < asked.swaps)


def _run(folder: Path, tiers: list[Tier], asked: argparse.Namespace) -> tuple[int, Counts]:
    """Returns: how many models were evicted, and what the requests got."""
    weights = folder / "weights"
    weights.mkdir()
    fleet = Fleet(folder, build_models(weights, MODELS))
    is_over = threading.Event()
    watch = threading.Thread(target=watched, args=(tiers, is_over), daemon=True)
    try:
        fleet.add_registry(settings=_AT_ONCE)
        fleet.add_neuron("left", settings="\n".join(_neuron(tiers)))
        swaps = Swaps(fleet.add_gateway(settings=_KEYS), asked.seed)
        fleet.wait("left")
        watch.start()
        swaps.run(asked.swaps, asked.minutes * 60)
        evicted = len(list(fleet["registry"].lines("unload.ordered")))
        return evicted, swaps.seen
    finally:
        fleet.end()  # what is in memory goes to disk, within its bound
        is_over.set()
        for tier in tiers:
            tier.look()


def _neuron(tiers: list[Tier]) -> Iterator[str]:
    memory, disk = tiers
    yield _ROOM_FOR_ONE
    yield "[neuron.kv_store]"
    yield f'memory_folder = "{memory.folder}"'
    yield f"memory_bytes = {memory.bound}"
    yield f'folder = "{disk.folder}"'
    yield f"folder_bytes = {disk.bound}"
    yield "keep_named = true"


if __name__ == "__main__":
    sys.exit(main())
