"""What is asked of every target."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Unit = Literal["request", "token"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One load on one target.

    Attributes:
        name: as reports and `--only` have it.
        mode: `n` answers at once, `p` paces all streams in lockstep, `s` spreads their ticks.
        unit: what CPU time is divided by.
        connections: at once, each sending its next request when the last is answered.
        tokens: of each answer.
        whole: not streamed.
        stamped: tokens carry the time at which the mock made them.
        stagger_seconds: over which the connections are opened.
        paced_tokens_per_second: what the mock offers; 0 where the target sets the pace.
    """

    name: str
    mode: Literal["n", "p", "s"]
    unit: Unit
    connections: int
    tokens: int
    whole: bool = False
    stamped: bool = False
    stagger_seconds: float = 0.0
    paced_tokens_per_second: float = 0.0


TOKENS_PER_SECOND = 50.0
INTERVAL_US = 20_000
PHASES = 20


def _whole(connections: int) -> Workload:
    return Workload(
        name=f"NS{connections}",
        mode="n",
        unit="request",
        connections=connections,
        tokens=16,
        whole=True,
    )


def _paced(name: str, mode: Literal["p", "s"], streams: int) -> Workload:
    return Workload(
        name=f"{name}{streams}",
        mode=mode,
        unit="token",
        connections=streams,
        tokens=256,
        stamped=True,
        # Peers listen with a backlog of 128: a burst of connects would wait for SYNs.
        stagger_seconds=0.6 if streams >= 256 else 0.0,
        paced_tokens_per_second=TOKENS_PER_SECOND * streams,
    )


_ALL = (
    _whole(1),
    _whole(8),
    _whole(64),
    _paced("PX", "p", 64),
    _paced("ST", "s", 64),
    _paced("ST", "s", 512),
    _paced("ST", "s", 1024),
    Workload(
        name="T64",
        mode="p",
        unit="token",
        connections=64,
        tokens=25,
        stagger_seconds=0.45,
        paced_tokens_per_second=TOKENS_PER_SECOND * 64,
    ),
)
WORKLOADS: Final = MappingProxyType({workload.name: workload for workload in _ALL})
QUICK: Final = ("NS8", "PX64", "T64")
