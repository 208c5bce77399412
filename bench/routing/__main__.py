"""`python -m bench.routing`: agents on several instances, by the gateway's own choice.

The oracle is one instance with an unbounded cache. Imbalance is the most that an instance did over
the mean, in requests and in work. A choice is timed by the clock that is read without a system call
(reading the thread's CPU time takes a microsecond here): its median has nobody else's work in it
unless the machine is full.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Sequence

from bench.routing.fleet import PLACES, Clock, Instance, PrefixCache
from bench.routing.traffic import Agent, Turn
from services.gateway.routing.candidates import (
    Availability,
    InstanceCandidate,
    Outstanding,
    Replicas,
)
from services.gateway.routing.choose import choose
from services.gateway.routing.holdings import Holdings
from services.gateway.routing.homes import Homes
from services.gateway.routing.prefix import trail_of

_REPORT_SECONDS = 1.0


class Gateway:
    """One gateway process: its own requests exactly, other gateways' by the last report."""

    def __init__(self, names: Sequence[str]) -> None:
        self.outstanding = Outstanding()
        self.homes = Homes()
        self.holdings = Holdings(self.homes.forget)
        self.choices: list[float] = []
        self.hashing_seconds = 0.0
        self.hashed_bytes = 0
        self.report(dict.fromkeys(names, 0))

    def report(self, running: dict[str, int]) -> None:
        """Takes in what runs where, of all gateways."""
        candidates = [
            InstanceCandidate(
                name,
                "m",
                f"neuron-{name}",
                "host:1",
                Availability.SERVING,
                foreign_requests=max(0, all_requests - self.outstanding.get(name, 0)),
                places=PLACES,
            )
            for name, all_requests in running.items()
        ]
        self.outstanding.unfollow()
        self._replicas = Replicas("m", candidates, self.outstanding)
        self.outstanding.follow(self._replicas)

    def choose(self, turn: Turn) -> str:
        """Where the request goes, and what it took to find out."""
        began = time.perf_counter()
        trail = trail_of(turn.request, "m")
        hashed = time.perf_counter()
        chosen = choose(self._replicas, self.homes, holdings=self.holdings, trail=lambda _: trail)
        self.choices.append(time.perf_counter() - hashed)
        self.hashing_seconds += hashed - began
        self.hashed_bytes += turn.request.ByteSize()
        assert isinstance(chosen, InstanceCandidate)
        return chosen.instance_id


class Run:
    """One simulation."""

    def __init__(self, asked: argparse.Namespace, agents: int) -> None:
        self.clock = Clock()
        self.instances = {
            f"i{number:08x}": Instance(
                self.clock, f"i{number:08x}", PrefixCache(asked.cache_tokens)
            )
            for number in range(0, asked.replicas * 0x1234567, 0x1234567)
        }
        self.gateways = [Gateway(list(self.instances)) for _ in range(asked.gateways)]
        self.oracle = PrefixCache(None)
        self.prompt_tokens = 0
        self.oracle_tokens = 0
        self._count = 0
        self._is_silent = asked.silent
        for number in range(agents):
            agent = Agent(number, asked.seed)
            self.clock.after(number * 0.25, functools.partial(self._ask, agent))
        self.clock.after(_REPORT_SECONDS, self._report)
        self.clock.run(asked.seconds)

    def _ask(self, agent: Agent) -> None:
        turn = agent.next_turn()
        self._count += 1
        gateway = self.gateways[self._count % len(self.gateways)]
        name = gateway.choose(turn)
        gateway.outstanding.take(name)
        self.prompt_tokens += sum(tokens for _, tokens in turn.segments)
        self.oracle_tokens += self.oracle.read(turn.segments)

        def done() -> None:
            gateway.outstanding.give_back(name)
            self.clock.after(turn.think_seconds, functools.partial(self._ask, agent))

        self.instances[name].serve(turn, done)

    def _report(self) -> None:
        running = {
            name: sum(gateway.outstanding.get(name, 0) for gateway in self.gateways)
            for name in self.instances
        }
        changes = [] if self._is_silent else [one.tell() for one in self.instances.values()]
        for gateway in self.gateways:
            gateway.report(running)
            for change in changes:
                gateway.holdings.apply(change)
        self.clock.after(_REPORT_SECONDS, self._report)


def _line(run: Run, agents: int) -> str:
    instances = list(run.instances.values())
    reused = sum(instance.reused_tokens for instance in instances)
    served = [instance.served for instance in instances]
    work = [instance.work_seconds for instance in instances]
    waits = sorted(wait for instance in instances for wait in instance.waits)
    choices = [seconds for gateway in run.gateways for seconds in gateway.choices]
    hashing = sum(g.hashing_seconds for g in run.gateways)
    kib = sum(g.hashed_bytes for g in run.gateways) / 1024
    return (
        f"{agents:6} {sum(served):8} {reused / run.prompt_tokens:7.1%}"
        f" {reused / run.oracle_tokens:8.3f}"
        f" {max(served) / statistics.mean(served):9.3f} {max(work) / statistics.mean(work):6.3f}"
        f" {waits[len(waits) // 2]:7.2f} {waits[len(waits) * 99 // 100]:7.2f}"
        f" {statistics.median(choices) * 1e6:8.2f} {hashing / kib * 1e6:8.3f}"
    )


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.routing", description=__doc__)
    parser.add_argument("--agents", type=int, nargs="+", default=[8, 32, 64])
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--cache-tokens", type=int, default=262_144, help="of each instance")
    parser.add_argument("--seconds", type=float, default=1_800.0, help="of virtual time")
    parser.add_argument("--silent", action="store_true", help="neurons tell nothing")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    print(
        "agents requests  reused   oracle  requests   work     p50     p99  µs/pick  µs/KiB\n"
        "                            =1.0  max/mean  ditto  s first token   (median) (hashing)"
    )
    for agents in asked.agents:
        print(_line(Run(asked, agents), agents), flush=True)


if __name__ == "__main__":
    main()
