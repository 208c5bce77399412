"""What the ranks of a group do together: NCCL between GPUs, gloo where there is none."""

from __future__ import annotations

import datetime as dt
import os
from typing import Any, Final

import torch
import torch.distributed as dist

from services.neuron.engines.exllamav2.parallel.rank import Rank

NCCL: Final = "nccl"
GLOO: Final = "gloo"
_SECONDS: Final = 60.0
"""Longest wait for the others: of their meeting, and of one collective over gloo. Over NCCL torch
ends the process that waits longer."""
# All ranks are on one machine: nothing listens on its other interfaces.
_LOCAL: Final = {"NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo"}


class NoCollectivesError(Exception):
    """There is nothing that the ranks could meet over; the message says what is missing."""


def backend(*, has_cuda: bool, has_nccl: bool, has_gloo: bool) -> str:
    """Chooses what carries the collectives: NCCL or gloo.

    Raises:
        NoCollectivesError: GPUs, and a torch without NCCL; or neither.
    """
    wanted, is_there = (NCCL, has_nccl) if has_cuda else (GLOO, has_gloo)
    if not is_there:
        name = "NCCL" if has_cuda else "gloo"
        raise NoCollectivesError(
            f'parallel = "tensor" needs {name}, which this build of torch lacks; use'
            ' parallel = "layers", or install a torch that has it.'
        )
    return wanted


def here() -> str:
    """The backend that this process can use.

    Raises:
        NoCollectivesError: see `backend`.
    """
    is_there = dist.is_available()
    return backend(
        has_cuda=torch.cuda.is_available(),
        has_nccl=is_there and dist.is_nccl_available(),
        has_gloo=is_there and dist.is_gloo_available(),
    )


def leave() -> None:
    """Ends a meeting, if there was one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


class Collectives:
    """The meeting of all ranks. One per process, for all of its models."""

    def __init__(self, rank: Rank, store: str) -> None:
        """Meets the others, and adds a number together with them: so it works.

        Args:
            rank: of this process.
            store: a file that all of them can write, new.

        Raises:
            NoCollectivesError: there is no backend.
            RuntimeError: the others did not come, or the first sum went wrong.
        """
        self.rank = rank
        for name, value in _LOCAL.items():
            os.environ.setdefault(name, value)
        kind = here()
        device = torch.device("cuda", 0) if kind == NCCL else torch.device("cpu")
        dist.init_process_group(
            kind,
            store=dist.FileStore(store, rank.count),
            rank=rank.number,
            world_size=rank.count,
            timeout=dt.timedelta(seconds=_SECONDS),
            device_id=device if kind == NCCL else None,
        )
        number = torch.ones(1, device=device)
        self.add(number)
        if int(number) != rank.count:
            raise RuntimeError(f"{kind} added {rank.count} ones to {int(number)}")

    def add(self, part: Any) -> None:
        """Adds up every rank's part, in place, for all of them."""
        dist.all_reduce(part)

    def broadcast(self, states: Any) -> None:
        """Gives every rank what rank 0 has, in place."""
        dist.broadcast(states, src=0)

    def gather(self, part: Any) -> Any:
        """All parts side by side along the last dimension, on rank 0; None on the others."""
        part = part.contiguous()
        if self.rank.number:
            dist.gather(part, dst=0)
            return None
        parts = [torch.empty_like(part) for _ in range(self.rank.count)]
        dist.gather(part, parts, dst=0)
        return torch.cat(parts, dim=-1)
