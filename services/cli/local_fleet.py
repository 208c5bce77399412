"""What `cortex up` runs: three services and their files."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Final

from services.backplane.address import Address
from services.backplane.security.credentials import FleetCredentials
from services.cli.children import Child
from services.cli.up_settings import LOOPBACK, UpSettings, catalogue_path

if TYPE_CHECKING:
    from services.gateway.settings import AuthSettings, GatewaySettings

_CATALOGUE: Final = "up_models.toml"


def default_data_dir(environment: Mapping[str, str]) -> pathlib.Path:
    """`$XDG_DATA_HOME/cortex`, or `~/.local/share/cortex`."""
    home = environment.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local" / "share"
    return pathlib.Path(home) / "cortex"


@dataclasses.dataclass(frozen=True, slots=True)
class LocalFleet:
    """Everything on one machine.

    Attributes:
        data_dir: logs, and models, catalogue and store where the settings put them nowhere else.
        settings: of all services.
        gateway, auth: those that clients come in by.
        config: the file that all services read; None for none.
        credentials: `up` asks the registry with them; None: plain text.
    """

    data_dir: pathlib.Path
    settings: UpSettings
    gateway: GatewaySettings
    auth: AuthSettings
    config: pathlib.Path | None
    credentials: FleetCredentials | None = None

    @property
    def gateway_url(self) -> str:
        """The URL that clients are given."""
        scheme = "http" if self.gateway.tls is None else "https"
        return f"{scheme}://{_reached(self.settings.address('gateway.listen'))}"

    @property
    def metrics_url(self) -> str:
        """The URL of the gateway's metrics; empty where it serves none."""
        listen = self.gateway.metrics_listen
        return f"http://{_reached(Address.parse(listen))}/metrics" if listen else ""

    @property
    def registry_address(self) -> str:
        """host:port of the registry, for `--registry`."""
        return str(_reached(self.settings.address("registry.listen")))

    @property
    def log_dir(self) -> pathlib.Path:
        """The folder of the logs, a file for each service."""
        return self.data_dir / "logs"

    @property
    def why_not_asked(self) -> str:
        """Why `up` cannot ask the gateway as a client does; empty where it can."""
        if self.settings.address("gateway.listen").is_unix:
            return "the gateway listens on a Unix socket"
        if self.gateway.tls is not None and self.gateway.tls.client_ca is not None:
            return "the gateway asks for a client's certificate"
        return ""

    def key(self, given: str) -> str | None:
        """The key that `up` itself asks with; None where one is needed and it has none.

        Args:
            given: by the user; empty for none.
        """
        known = [each.key for each in self.auth.keys if each.key]
        return given or next(iter(known), None if self.auth.asks_for_keys else "")

    def prepare(self) -> None:
        """Makes the folders, and the catalogue where none is named and there is none yet."""
        self.log_dir.mkdir(parents=True, exist_ok=True)
        if "neuron.models_dirs" in self.settings.chosen:
            (self.data_dir / "models").mkdir(exist_ok=True)
        catalogue = catalogue_path(self.data_dir)
        if "registry.models" in self.settings.chosen and not catalogue.exists():
            text = (resources.files("services.cli") / _CATALOGUE).read_text(encoding="utf-8")
            catalogue.write_text(text, encoding="utf-8")

    def children(self) -> Sequence[Child]:
        """The services, in the order in which they start."""
        return [self._child(name) for name in ("registry", "neuron", "gateway")]

    def _child(self, name: str) -> Child:
        config = () if self.config is None else ("--config", str(self.config))
        return Child(
            name=name,
            arguments=(name, *config),
            environment=self.settings.environment(),
            log_path=self.log_dir / f"{name}.log",
        )


def _reached(listen: Address) -> Address:
    return listen.dialled_as("::1" if listen.host == "::" else LOOPBACK)
