"""What `cortex up` runs: three services, their ports, their files."""

from __future__ import annotations

import dataclasses
import pathlib
import socket
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Final

from services.cli.children import Child

_CATALOGUE: Final = "up_models.toml"


@dataclasses.dataclass(frozen=True, slots=True)
class Ports:
    """Where each service listens."""

    gateway: int
    gateway_metrics: int
    registry: int
    registry_metrics: int
    neuron: int
    neuron_metrics: int

    @classmethod
    def beside(cls, gateway: int) -> Ports:
        """The usual ports for the usual gateway port, and their neighbours for another one."""
        neuron = 13131 if gateway == 31313 else gateway + 4  # noqa: PLR2004 - the documented ports
        return cls(
            gateway=gateway,
            gateway_metrics=gateway + 1,
            registry=gateway + 2,
            registry_metrics=gateway + 3,
            neuron=neuron,
            neuron_metrics=neuron + 1,
        )

    def items(self) -> Sequence[tuple[str, int]]:
        """Each port behind its name in words, such as `gateway metrics`."""
        fields = dataclasses.asdict(self)
        return [(name.replace("_", " "), port) for name, port in fields.items()]


def free_ports(host: str) -> Ports:
    """Ports that nobody listens on now."""
    probes = [socket.create_server((host, 0)) for _ in range(6)]
    try:
        return Ports(*(probe.getsockname()[1] for probe in probes))
    finally:
        for probe in probes:
            probe.close()


def default_data_dir(environment: Mapping[str, str]) -> pathlib.Path:
    """`$XDG_DATA_HOME/cortex`, or `~/.local/share/cortex`."""
    home = environment.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local" / "share"
    return pathlib.Path(home) / "cortex"


@dataclasses.dataclass(frozen=True, slots=True)
class LocalFleet:
    """Everything on one machine.

    Attributes:
        data_dir: models, catalogue, store and logs.
        host: where the gateway listens; the other services too.
        ports: of all services.
        config: settings that all services read below what is set here; None for none.
    """

    data_dir: pathlib.Path
    host: str
    ports: Ports
    config: pathlib.Path | None

    @property
    def gateway_url(self) -> str:
        """The URL that clients are given."""
        return f"http://{self._reached_at}:{self.ports.gateway}"

    @property
    def metrics_url(self) -> str:
        """The URL of the gateway's metrics."""
        return f"http://{self._reached_at}:{self.ports.gateway_metrics}"

    @property
    def registry_address(self) -> str:
        """host:port of the registry, for `--registry`."""
        return f"{self._reached_at}:{self.ports.registry}"

    @property
    def log_dir(self) -> pathlib.Path:
        """The folder of the logs, a file for each service."""
        return self.data_dir / "logs"

    @property
    def catalogue(self) -> pathlib.Path:
        """The catalogue file, which its user may edit."""
        return self.data_dir / "models.toml"

    @property
    def _reached_at(self) -> str:
        return "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host

    def prepare(self) -> None:
        """Makes the folders, and the catalogue where there is none yet."""
        self.log_dir.mkdir(parents=True, exist_ok=True)
        (self.data_dir / "models").mkdir(exist_ok=True)
        if not self.catalogue.exists():
            text = (resources.files("services.cli") / _CATALOGUE).read_text(encoding="utf-8")
            self.catalogue.write_text(text, encoding="utf-8")

    def children(self) -> Sequence[Child]:
        """The services, in the order in which they start."""
        return [self._child(name) for name in ("registry", "neuron", "gateway")]

    def _child(self, name: str) -> Child:
        config = () if self.config is None else ("--config", str(self.config))
        return Child(
            name=name,
            arguments=(name, *config),
            environment=self._environment(),
            log_path=self.log_dir / f"{name}.log",
        )

    def _environment(self) -> dict[str, str]:
        registry = f'["{self.registry_address}"]'
        return {
            "CORTEX_GATEWAY__LISTEN": f"{self.host}:{self.ports.gateway}",
            "CORTEX_GATEWAY__METRICS_LISTEN": f"{self.host}:{self.ports.gateway_metrics}",
            "CORTEX_GATEWAY__REGISTRY": registry,
            "CORTEX_GATEWAY__RESPONSES_FILE": str(self.data_dir / "responses.sqlite"),
            "CORTEX_REGISTRY__LISTEN": f"{self.host}:{self.ports.registry}",
            "CORTEX_REGISTRY__METRICS_LISTEN": f"{self.host}:{self.ports.registry_metrics}",
            "CORTEX_REGISTRY__MODELS": str(self.catalogue),
            "CORTEX_REGISTRY__STORE": f"sqlite:{self.data_dir / 'registry.sqlite'}",
            "CORTEX_NEURON__NAME": "local",
            "CORTEX_NEURON__LISTEN": f"{self.host}:{self.ports.neuron}",
            "CORTEX_NEURON__METRICS_LISTEN": f"{self.host}:{self.ports.neuron_metrics}",
            "CORTEX_NEURON__ADVERTISE": f"{self._reached_at}:{self.ports.neuron}",
            "CORTEX_NEURON__REGISTRY": registry,
            "CORTEX_NEURON__MODELS_DIRS": f'["{self.data_dir / "models"}"]',
        }
