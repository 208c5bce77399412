"""Every service as a process of its own, as systemd would run it, with its log at hand."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import psutil

from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc as op_grpc
from services.backplane.process.lifecycle import DIE_WITH_PARENT
from tests.doubles.processes import free_port
from tests.system.fleet.successor import Successor

PATIENCE_SECONDS = 60.0
ALLOWED = 'allowed = { folders = ["/"] }'
MIB = 1 << 20
# Services end with the thread that has started them: this one lives as long as the tests.
_STARTER = ThreadPoolExecutor(1)


def until(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Polls until a condition holds; returns what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.02)
    return found


def is_ready(url: str) -> bool:
    """True if a gateway serves and knows the fleet; it may not even listen yet."""
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


class Service:
    """One service. It may be killed and started again; its log goes on.

    Attributes:
        tree: the checkout that its program is of; None for this one.
        outlives_parent: whether it may be succeeded, which a process that dies with its parent
            refuses.
    """

    def __init__(
        self,
        command: str,
        name: str,
        folder: pathlib.Path,
        settings: str,
        *,
        within: Sequence[str] = (),
    ) -> None:
        """Prepares it; `within` is a command that runs another one, on another host for example."""
        self.name = name
        self._within = within
        self.tree: pathlib.Path | None = None
        self.outlives_parent = False
        self.log_path = folder / f"{name}.log"
        self._config = folder / f"{name}.toml"
        self._config.write_text(settings)
        self._command = command
        self._process: subprocess.Popen[bytes] | Successor | None = None

    @property
    def process(self) -> subprocess.Popen[bytes] | Successor:
        """The newest process."""
        assert self._process is not None
        return self._process

    @property
    def is_running(self) -> bool:
        """True while its process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts it; it may take a moment until it serves."""
        arguments = [*self._within, sys.executable, "-m", "services.cli", self._command]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CORTEX_")}
        if not self.outlives_parent:
            environment[DIE_WITH_PARENT] = "1"
        if self.tree is not None:
            environment["PYTHONPATH"] = f"{self.tree}{os.pathsep}{self.tree / 'protos'}"
        with self.log_path.open("ab") as sink:
            self._process = _STARTER.submit(
                subprocess.Popen,
                [*arguments, "--config", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=environment,
                cwd=self.tree,
            ).result()

    def hand_over(self) -> subprocess.Popen[bytes] | Successor:
        """Has it start its successor, which is the service from then on; returns the old process."""
        before, old = len(list(self.lines("handover.done"))), self.process
        old.send_signal(signal.SIGUSR2)
        done = until(lambda: list(self.lines("handover.done"))[before:])
        self._process = Successor(done[0]["successor"])
        return old

    def kill(self) -> None:
        """kill -9. What it had started has to end by itself: a worker left behind holds its GPU."""
        process = self.process
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, orphans = psutil.wait_procs(children, timeout=5)
        for orphan in orphans:
            orphan.kill()
        assert not orphans, orphans

    def end(self, seconds: float = 40) -> int:
        """Ends it as systemd does, who kills what takes longer; returns the exit code."""
        if (code := self.process.poll()) is not None:
            return code
        self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def lines(self, event: str = "") -> Iterator[dict[str, Any]]:
        """What it logged, oldest first."""
        if not self.log_path.exists():
            return
        for line in self.log_path.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                found = json.loads(line)
                if event in {"", found["event"]}:
                    yield found

    def __str__(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:]


@dataclasses.dataclass
class Fleet:
    """Services on this machine, started by a test and ended after it.

    Attributes:
        folder: settings, logs, stores.
        services: all of them, in the order of their start.
        registries: addresses, the first one first.
        url: of the gateway.
        environment: of commands, besides the tests' own.
        channel: how a test reaches a registry.
        host: where the registries are reached.
    """

    folder: pathlib.Path
    models: str
    services: dict[str, Service] = dataclasses.field(default_factory=dict)
    registries: list[str] = dataclasses.field(default_factory=list)
    url: str = ""
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    channel: Callable[[str], grpc.Channel] = grpc.insecure_channel
    host: str = "127.0.0.1"

    def __getitem__(self, name: str) -> Service:
        return self.services[name]

    def add_registry(
        self,
        name: str = "registry",
        *,
        store: str = "",
        settings: str = "",
        metrics: str = "",
        listen: str = "",
        address: str = "",
        tree: pathlib.Path | None = None,
    ) -> None:
        """Starts a registry that others are told of when they are added.

        Args:
            address: where others reach it; unless said, where it listens.
            tree: the checkout that its program is of, likewise of the others.
        """
        listen = listen or f"{self.host}:{free_port()}"
        address = address or listen
        self.registries.append(address)
        self._start(
            "registry",
            name,
            f"""
[registry]
listen = "{listen}"
address = "{address}"
metrics_listen = "{metrics}"
models = "{self.catalogue}"
store = "{store or f"sqlite:{self.folder / name}.sqlite"}"
{settings}
""",
            tree=tree,
        )

    def add_neuron(
        self,
        name: str,
        *,
        settings: str = "",
        listen: str = "127.0.0.1:0",
        advertise: str = "",
        metrics: str = "",
        within: Sequence[str] = (),
        tree: pathlib.Path | None = None,
    ) -> None:
        """Starts a neuron on the CPU; `within` as of `Service`."""
        allowed = "" if tree else ALLOWED  # 0.1.0 has no such setting, and loads from anywhere
        registries = json.dumps(self.registries)
        (self.folder / "models").mkdir(exist_ok=True)
        self._start(
            "neuron",
            name,
            f"""
[neuron]
name = "{name}"
listen = "{listen}"
advertise = "{advertise or listen}"
metrics_listen = "{metrics}"
registry = {registries}
models_dirs = ["{self.folder / "models"}"]
{allowed}
threads = 1
{settings}
""",
            within=within,
            tree=tree,
        )

    def add_gateway(
        self,
        name: str = "gateway",
        *,
        command: str = "gateway",
        settings: str = "",
        metrics: str = "",
        tree: pathlib.Path | None = None,
        is_succeeded: bool = False,
    ) -> str:
        """Starts a gateway; `command="serve"` runs a registry inside it. Returns its URL."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        registry = f"registry = {json.dumps(self.registries)}" if command == "gateway" else ""
        self._start(
            command,
            name,
            f"""
[gateway]
listen = "127.0.0.1:{port}"
metrics_listen = "{metrics}"
{registry}
{settings}
""",
            tree=tree,
            is_succeeded=is_succeeded,
        )
        return self.url

    @property
    def catalogue(self) -> pathlib.Path:
        """The file that the registries read."""
        path = self.folder / "models.toml"
        if not path.exists():
            path.write_text(self.models)
        return path

    def state(self) -> op.GetFleetResponse | None:
        """What the registry that leads says of the fleet; None where none does."""
        states = self._states()
        return next((s for s in states if s.registry.role == "leader"), None)

    def roles(self) -> list[str]:
        """What the registries that answer are, in order."""
        return sorted(state.registry.role for state in self._states())

    def in_flight(self) -> dict[str, int]:
        """Requests that the registry knows to run, by model."""
        state = self.state()
        return {
            instance.spec.model: instance.active_requests
            for neuron in (state.neurons if state else ())
            for instance in neuron.report.instances
        }

    def waiting(self) -> dict[str, int]:
        """Callers that wait for a placement, by model."""
        state = self.state()
        return {each.model: each.waiters for each in (state.pending if state else ())}

    def live(self) -> set[str]:
        """Neurons that are members and not lost."""
        state = self.state()
        neurons = state.neurons if state else ()
        return {n.identity.name for n in neurons if n.HasField("report") and not n.lost}

    def is_cordoned(self, name: str) -> bool:
        """True if nothing new is placed on a neuron."""
        state = self.state()
        neurons = state.neurons if state else ()
        return any(n.cordoned for n in neurons if n.identity.name == name)

    def placed(self) -> dict[str, list[str]]:
        """What every live neuron has READY."""
        ready = {}
        state = self.state()
        for neuron in state.neurons if state else ():
            names = [i.spec.model for i in neuron.report.instances if i.state == _READY]
            ready[neuron.identity.name] = [] if neuron.lost else sorted(names)
        return ready

    def instances(self, model: str) -> list[Any]:
        """All instances of a model, as their neurons have reported them."""
        state = self.state()
        found = [i for n in (state.neurons if state else ()) for i in n.report.instances]
        return [instance for instance in found if instance.spec.model == model]

    @contextlib.contextmanager
    def operator(self) -> Iterator[op_grpc.OperatorServiceStub]:
        """The operators' RPCs of the first registry."""
        with self.channel(self.registries[0]) as channel:
            yield op_grpc.OperatorServiceStub(channel)

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One `cortex` command against the first registry."""
        command = [sys.executable, "-m", "services.cli", *arguments]
        done = subprocess.run(
            [*command, "--registry", self.registries[0]],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
            env={**os.environ, "COLUMNS": "240", "NO_COLOR": "1", **self.environment},
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def is_ready(self) -> bool:
        """True if the gateway serves and knows the fleet."""
        return is_ready(self.url)

    def wait(self, *neurons: str) -> None:
        """Waits until the gateway serves and these neurons are members."""
        until(lambda: set(neurons) <= self.live())
        until(self.is_ready)

    def end(self) -> dict[str, int]:
        """Ends everything that runs, gateways first; returns the exit codes."""
        running = [s for s in reversed(self.services.values()) if s.is_running]
        return {service.name: service.end() for service in running}

    def _states(self) -> Iterator[op.GetFleetResponse]:
        for address in self.registries:
            with self.channel(address) as channel:
                stub = op_grpc.OperatorServiceStub(channel)
                with contextlib.suppress(grpc.RpcError):
                    yield stub.GetFleet(op.GetFleetRequest(), timeout=2)

    def _start(
        self,
        command: str,
        name: str,
        settings: str,
        *,
        within: Sequence[str] = (),
        tree: pathlib.Path | None = None,
        is_succeeded: bool = False,
    ) -> None:
        service = Service(command, name, self.folder, settings, within=within)
        service.tree, service.outlives_parent = tree, is_succeeded
        self.services[name] = service
        service.start()


_READY = 2
