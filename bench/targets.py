"""What can be measured: our gateway, and the mock without anything in front of it."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from bench.load import built
from bench.processes import LOAD_CPU, TARGET_CPU, Process
from bench.workloads import INTERVAL_US, PHASES
from tests.doubles.processes import free_port

# Puts a process on the list of those that end with the benchmark.
Starting: TypeAlias = Callable[[Process], Process]


class Skipped(Exception):  # noqa: N818 - a reason, not an error
    """A target that cannot run here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mock:
    """The engine behind every target."""

    grpc_port: int
    http_port: int
    process: Process


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something that answers `/v1/chat/completions`.

    Attributes:
        process: whose CPU time counts; None where nothing stands before the mock.
        settle: whether a backlog may outlive a window and has to be waited for.
        most_connections: where it is saturated; more would only pile up work that spoils the
            windows of the others.
    """

    name: str
    port: int
    process: Process | None
    model: str = "bench"
    header: str = ""
    settle: bool = False
    most_connections: int = 1 << 30
    helpers: list[Process] = field(default_factory=list)


class Launch(Protocol):
    """Starts one target."""

    def __call__(self, mock: Mock, cache: Path, starting: Starting) -> Target:
        """Starts it and waits until it listens.

        Raises:
            Skipped: it is not installed.
            StartError: it did not come up.
        """
        ...


def start_mock(cache: Path, starting: Starting) -> Mock:
    """Builds and starts the mock, on the load's core."""
    program = built("mock", cache)
    grpc_port, http_port = free_port(), free_port()
    command = [str(program), "--grpc-port", str(grpc_port), "--http-port", str(http_port)]
    command += ["--interval-us", str(INTERVAL_US), "--phases", str(PHASES)]
    process = starting(Process(command, cpu=LOAD_CPU, log=cache / "mock.log"))
    process.wait_for_port(http_port)
    return Mock(grpc_port=grpc_port, http_port=http_port, process=process)


def direct(mock: Mock, cache: Path, starting: Starting) -> Target:
    """The mock itself: what the load generator and the engine can do at most."""
    del cache, starting
    return Target(name="direct", port=mock.http_port, process=mock.process)


def gateway(
    codec: str,
    transport: str,
    name: str,
    *,
    checkout: Path | None = None,
    python: str = sys.executable,
) -> Launch:
    """Our gateway, told of the mock by a registry that knows nothing else.

    Args:
        codec: `http1_codec` of its settings.
        transport: likewise.
        name: of the target.
        checkout: another working tree whose gateway is run; its generated protos must be there.
        python: the interpreter that runs it, on the packages of this one.
    """

    def launch(mock: Mock, cache: Path, starting: Starting) -> Target:
        registry_port, port = free_port(), free_port()
        registry = f"127.0.0.1:{registry_port}"
        command = [sys.executable, "-m", "bench.stub_registry", "--listen", registry]
        command += ["--neuron", f"127.0.0.1:{mock.grpc_port}"]
        stub = starting(Process(command, cpu=LOAD_CPU, log=cache / "stub_registry.log"))
        stub.wait_for_port(registry_port)
        settings = cache / f"{name}.toml"
        settings.write_text(
            f'[gateway]\nlisten = "127.0.0.1:{port}"\nmetrics_listen = "127.0.0.1:{free_port()}"\n'
            f'registry = ["{registry}"]\nhttp1_codec = "{codec}"\ntransport = "{transport}"\n'
        )
        command = [python, "-m", "services.gateway", "--config", str(settings)]
        environment = {key: "" for key in os.environ if key.startswith("CORTEX_")}
        ours = [str(checkout), str(checkout / "protos")] if checkout else []
        packages = [path for path in sys.path if not path.startswith(sys.base_prefix)]
        environment["PYTHONPATH"] = os.pathsep.join([*ours, *packages])
        log = cache / f"{name}.log"
        process = starting(
            Process(command, cpu=TARGET_CPU, log=log, environment=environment, folder=checkout)
        )
        process.wait_for_port(port)
        return Target(name=name, port=port, process=process, helpers=[stub])

    return launch
