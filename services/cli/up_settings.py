"""Which settings `cortex up` makes up: those that its user leaves open, and no others."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from services.backplane.address import Address
from services.backplane.settings import Document, SettingsError
from services.cli.own_registry import names_own_registry

LOOPBACK: Final = "127.0.0.1"
DEFAULT_PORT: Final = 31313
# The highest gateway port that has room for the ports of the other services behind it.
LAST_PORT: Final = 65_530
_SOURCES: Final = ("path", "hf", "package")
_LISTENS: Final = {
    "gateway": "gateway.listen",
    "gateway metrics": "gateway.metrics_listen",
    "registry": "registry.listen",
    "registry metrics": "registry.metrics_listen",
    "neuron": "neuron.listen",
    "neuron metrics": "neuron.metrics_listen",
}


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
        neuron = 13131 if gateway == DEFAULT_PORT else gateway + 4
        return cls(
            gateway=gateway,
            gateway_metrics=gateway + 1,
            registry=gateway + 2,
            registry_metrics=gateway + 3,
            neuron=neuron,
            neuron_metrics=neuron + 1,
        )


def free_ports() -> Ports:
    """Ports that nobody listens on now."""
    probes = [socket.create_server(("", 0)) for _ in range(6)]
    try:
        return Ports(*(probe.getsockname()[1] for probe in probes))
    finally:
        for probe in probes:
            probe.close()


@dataclasses.dataclass(frozen=True, slots=True)
class UpSettings:
    """The settings of a fleet on one machine.

    Attributes:
        document: all that the services will read.
        chosen: the part of it that file and environment leave open, by dotted key.
    """

    document: Document
    chosen: Mapping[str, Any]

    def address(self, key: str) -> Address:
        """An address among the settings, such as `gateway.listen`."""
        section, _, name = key.partition(".")
        return Address.parse(self.document.tables[section][name])

    def listens(self) -> Iterator[tuple[str, Address]]:
        """Each address that is listened on, behind its service in words."""
        for service, key in _LISTENS.items():
            section, _, name = key.partition(".")
            if self.document.tables[section][name]:  # metrics may be served nowhere
                yield service, self.address(key)

    def environment(self) -> Mapping[str, str]:
        """What was chosen, as the services read it from their environment."""
        return {
            f"CORTEX_{key.replace('.', '__')}".upper(): value
            if isinstance(value, str)
            else json.dumps(value, ensure_ascii=False)  # a list of texts is the same in TOML
            for key, value in self.values()
        }

    def values(self) -> Iterator[tuple[str, str | list[str]]]:
        """The settings that `cortex up` chose: pairs of dotted key and value."""
        return _flat(self.chosen)


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each value that is no table, behind its dotted key."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", each) for name, each in _flat(value))
        else:
            yield key, value


def choose(
    document: Document, data_dir: pathlib.Path, *, host: str | None, port: int | None
) -> UpSettings:
    """Adds to the user's settings what a fleet on one machine needs besides.

    Only the gateway listens on the host that is asked for: the other ports know no users.

    Args:
        document: the user's, from file and environment.
        data_dir: for models, catalogue and stores that the user puts nowhere else.
        host: where the gateway listens; None: where the settings say, else on loopback.
        port: likewise; 0 picks free ports for everything that the settings leave open.

    Raises:
        SettingsError: what was asked for and what is set contradict each other; both places are
            named.
        BadAddressError: the host has no address's form.
    """
    _check_gateway(document, host=host, port=port)
    ports = free_ports() if port == 0 else Ports.beside(_gateway_port(document, port))
    chosen: dict[str, Any] = {}

    def add(key: str, value: Any) -> None:
        if not document.has(key):
            chosen[key] = value

    add("gateway.listen", str(Address(host or LOOPBACK, ports.gateway)))
    add("gateway.metrics_listen", f"{LOOPBACK}:{ports.gateway_metrics}")
    add("gateway.responses_file", str(data_dir / "responses.sqlite"))
    add("registry.listen", f"{LOOPBACK}:{ports.registry}")
    add("registry.metrics_listen", f"{LOOPBACK}:{ports.registry_metrics}")
    add("registry.models", str(catalogue_path(data_dir)))
    add("registry.store", f"sqlite:{data_dir / 'registry.sqlite'}")
    add("neuron.name", "local")
    add("neuron.listen", f"{LOOPBACK}:{ports.neuron}")
    add("neuron.metrics_listen", f"{LOOPBACK}:{ports.neuron_metrics}")
    add("neuron.models_dirs", [str(data_dir / "models")])
    # the catalogue is the user's own file: what it names is loaded wherever it lies
    add(
        "neuron.allowed",
        {
            "sources": list(_SOURCES),
            "folders": [str(pathlib.Path.home())],
            "catalogues": [document.with_values(chosen).tables["registry"]["models"]],
        },
    )
    so_far = UpSettings(document.with_values(chosen), chosen)
    registry = so_far.address("registry.listen")
    _check_fixed(document, so_far)
    add("neuron.advertise", str(so_far.address("neuron.listen").dialled_as(LOOPBACK)))
    add("gateway.registry", [str(registry.dialled_as(LOOPBACK))])
    add("neuron.registry", [str(registry.dialled_as(LOOPBACK))])
    _check_registries(document, registry)
    return UpSettings(document.with_values(chosen), chosen)


def catalogue_path(data_dir: pathlib.Path) -> pathlib.Path:
    """The catalogue that `up` writes where the settings name none."""
    return data_dir / "models.toml"


def _gateway_port(document: Document, port: int | None) -> int:
    if port is not None:
        return port
    if document.has("gateway.listen"):
        return Address.parse(document.tables["gateway"]["listen"]).port or DEFAULT_PORT
    return DEFAULT_PORT


def _check_gateway(document: Document, *, host: str | None, port: int | None) -> None:
    if not document.has("gateway.listen"):
        return
    text = document.tables["gateway"]["listen"]
    listen = Address.parse(text)
    for option, wanted, set_there in (("--host", host, listen.host), ("--port", port, listen.port)):
        if wanted is not None and wanted != set_there:
            raise SettingsError(
                f"{option} {wanted} contradicts {document.place('gateway.listen')} = {text!r};"
                " leave one of them out"
            )


def _check_fixed(document: Document, settings: UpSettings) -> None:
    for key in ("gateway.listen", "registry.listen", "neuron.listen"):
        if settings.address(key).port == 0:
            raise SettingsError(
                f"{document.place(key)}: `cortex up` has to know the port; leave the key out and"
                " say `--port 0` for free ones"
            )


def _check_registries(document: Document, registry: Address) -> None:
    """A gateway or neuron that is told of other registries only would never join this fleet."""
    for key in ("gateway.registry", "neuron.registry"):
        if not document.has(key):
            continue
        section, _, name = key.partition(".")
        named: Sequence[str] = document.tables[section][name]
        # a neuron without any waits until `[[neurons]]` lets the registry dial it
        if named and not names_own_registry(registry, named):
            where = (
                document.place("registry.listen")
                if document.has("registry.listen")
                else "`cortex up`, whose registry listens there"
            )
            raise SettingsError(
                f"{document.place(key)} = {list(named)} contradicts {registry} of {where};"
                " leave one of them out"
            )
