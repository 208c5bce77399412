"""The other ranks' processes, as rank 0 sees them: started, told what to do, watched.

They are children of rank 0, in its process group and under its parent-death signal, so that what
ends rank 0 ends them. When one of them ends, rank 0 ends itself at once: it may hang in an
all-reduce that nobody will answer. So the daemon sees one worker, which dies as one.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.neuron.engine_api.model import EnginePoisoned, LoadFailed
from services.neuron.engine_api.task import Value
from services.neuron.engines.exllamav2.parallel.channel import Channel, ClosedError
from services.neuron.engines.exllamav2.parallel.messages import (
    REPLIES,
    Drop,
    Join,
    Measure,
    RankAnswer,
    RankHello,
    Reply,
)
from services.neuron.engines.exllamav2.parallel.rank import Rank

if TYPE_CHECKING:
    from services.neuron.engines.exllamav2.parallel.collectives import Collectives

DEVICES_VARIABLE: Final = "CORTEX_RANK_DEVICE_IDS"
"""GPUs of a worker whose models are divided, rank by rank, with commas; its own is the first."""
_START_SECONDS: Final = 120.0
"""Longest time until a process has imported the library."""
_ANSWER_SECONDS: Final = 120.0
"""Longest time for one module of a load."""
_GLANCE_SECONDS: Final = 0.1
EX_RANK_LOST: Final = 70


class Group:
    """All other ranks of this process, for all of its models.

    Attributes:
        rank: of this process.
        device_ids: rank by rank.
    """

    def __init__(self, device_ids: Sequence[str]) -> None:
        """Starts nothing yet."""
        self.rank = Rank(0, len(device_ids))
        self.device_ids = tuple(device_ids)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._channels: list[Channel[Reply]] = []
        self._collectives: Collectives | None = None
        self._is_stopping = False

    @property
    def collectives(self) -> Collectives:
        """With the other ranks, once they have met."""
        assert self._collectives is not None
        return self._collectives

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the others."""
        return tuple(process.pid for process in self._processes)

    def spawn(self) -> None:
        """Starts the others' processes, which import the library meanwhile."""
        self._is_stopping = False
        for number in range(1, self.rank.count):
            self._spawn(number)

    def meet(self) -> Iterator[None]:
        """Waits for the others and meets them; each step takes a tenth of a second at most.

        Raises:
            LoadFailed: one of them cannot run, or they cannot meet.
        """
        # torch takes seconds to import; the others' processes are started before.
        from services.neuron.engines.exllamav2.parallel.collectives import NoCollectivesError, here

        if self._collectives is not None:
            return
        try:
            here()
        except NoCollectivesError as error:
            raise LoadFailed("LOAD_FAILED", str(error)) from error
        try:
            if not self._processes:
                self.spawn()
            for number, channel in enumerate(self._channels, start=1):
                yield from self._greet(number, channel)
            self._meet()
        except BaseException:
            self.stop()
            raise
        for number, process in enumerate(self._processes, start=1):
            threading.Thread(
                target=self._watch, args=(number, process), name=f"rank-{number}", daemon=True
            ).start()

    def tell(self, order: Value) -> None:
        """Gives all others an order that is not answered.

        Raises:
            EnginePoisoned: one of them is gone.
        """
        for number, channel in enumerate(self._channels, start=1):
            try:
                channel.send(order)
            except ClosedError as error:
                raise EnginePoisoned(f"Rank {number}: {error}.") from error

    def answers(self) -> list[RankAnswer]:
        """The answers to one order, rank by rank.

        Raises:
            EnginePoisoned: one of them is gone, or does not answer.
        """
        return [self._answer(number, one) for number, one in enumerate(self._channels, start=1)]

    def ask(self, order: Value) -> list[RankAnswer]:
        """Gives an order and returns the answers; raises as `tell` and `answers` do."""
        self.tell(order)
        return self.answers()

    def free_bytes(self) -> list[int]:
        """Free memory of the others' devices."""
        return [answer.number for answer in self.ask(Measure())]

    def drop(self, instance_id: str) -> None:
        """Has the others free a model, and returns when they have."""
        self.ask(Drop(instance_id))

    def stop(self) -> None:
        """Ends those that were started; another `meet` begins anew."""
        from services.neuron.engines.exllamav2.parallel.collectives import leave

        self._is_stopping = True
        for channel in self._channels:
            channel.close()
        for process in self._processes:
            process.kill()
            process.wait()
        self._channels, self._processes, self._collectives = [], [], None
        leave()

    def _spawn(self, number: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            module = "services.neuron.engines.exllamav2.parallel"
            arguments = ["--fd", theirs.fileno(), "--rank", number, "--ranks", self.rank.count]
            process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | {"CUDA_VISIBLE_DEVICES": self.device_ids[number]},
            )
        self._processes.append(process)
        self._channels.append(Channel(ours, REPLIES))

    def _greet(self, number: int, channel: Channel[Reply]) -> Iterator[None]:
        ends_at = time.monotonic() + _START_SECONDS
        while True:
            try:
                hello = channel.receive(seconds=_GLANCE_SECONDS)
            except ClosedError as error:
                raise LoadFailed("LOAD_FAILED", f"Rank {number} did not start: {error}.") from error
            if hello is None:
                if time.monotonic() > ends_at:
                    told = f"Rank {number} was not ready in {_START_SECONDS:.0f} s."
                    raise LoadFailed("LOAD_FAILED", told)
                yield
                continue
            error_text = hello.error if isinstance(hello, RankHello) else "it said no hello"
            if error_text:
                raise LoadFailed("LOAD_FAILED", f"Rank {number} cannot run: {error_text}")
            return

    def _meet(self) -> None:
        from services.neuron.engines.exllamav2.parallel.collectives import Collectives

        with tempfile.TemporaryDirectory(prefix="cortex-ranks-") as folder:
            store = str(Path(folder) / "store")
            self.tell(Join(store))
            try:
                self._collectives = Collectives(self.rank, store)
            except RuntimeError as error:
                words = " ".join(str(error).split())[:300]
                raise LoadFailed("LOAD_FAILED", f"The ranks cannot meet: {words}") from error
            self.answers()

    def _answer(self, number: int, channel: Channel[Reply]) -> RankAnswer:
        try:
            answer = channel.receive(seconds=_ANSWER_SECONDS)
        except ClosedError as error:
            raise EnginePoisoned(f"Rank {number}: {error}.") from error
        if not isinstance(answer, RankAnswer):
            raise EnginePoisoned(f"Rank {number} gave no answer in {_ANSWER_SECONDS:.0f} s.")
        return answer

    def _watch(self, number: int, process: subprocess.Popen[bytes]) -> None:
        """Ends this process with that of another rank; runs in a thread of its own."""
        code = process.wait()
        if self._is_stopping:
            return
        cause = f"exit code {code}"
        if code < 0:
            cause = f"signal {signal.Signals(-code).name}"
        sys.stderr.write(f"worker: rank {number} of {self.rank.count} has ended: {cause}\n")
        sys.stderr.flush()
        os._exit(EX_RANK_LOST)
