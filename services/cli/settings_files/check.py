"""What is wrong with settings, as the services that read them would say it at their start."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from services.backplane.security.credentials import own_credentials
from services.backplane.security.roles import Role
from services.backplane.settings import Document, SettingsError
from services.cli.settings_files.sections import Service, read_sections

_SECTIONS: Final = {
    Service.GATEWAY: ("gateway", "auth"),
    Service.REGISTRY: ("registry", "eviction", "neurons"),
    Service.NEURON: ("neuron",),
}


def services_of(document: Document) -> Collection[Service]:
    """The services that the settings are for: those whose sections are there; without any, all."""
    named = {each for each, names in _SECTIONS.items() if set(names) & set(document.tables)}
    return named or set(Service)


def problems(document: Document, services: Collection[Service]) -> Iterator[str]:
    """Everything because of which one of the services would not start, each thing once.

    Ports that are taken, folders that cannot be written and addresses that nobody listens on are
    not looked at.

    Args:
        document: the settings.
        services: that are to start with them.
    """
    told: set[str] = set()
    for look in (_every_section, *(_LOOKS[each] for each in sorted(services))):
        try:
            look(document)
        except (SettingsError, ValueError) as error:
            if str(error) not in told:
                told.add(str(error))
                yield str(error)


def problem_of_catalogue(path: pathlib.Path) -> str:
    """What is wrong with a models.toml; empty where nothing is."""
    from services.registry.catalogue import catalogue

    try:
        catalogue.load(path)
    except SettingsError as error:
        return str(error)
    return ""


def problem_of_agent(path: pathlib.Path, environment: Mapping[str, str]) -> str:
    """What is wrong with a config.toml of `cortex acp`; empty where nothing is."""
    from services.agent.core.settings import load_settings

    try:
        load_settings(environment, path)
    except SettingsError as error:
        return str(error)
    return ""


def _every_section(document: Document) -> None:
    for _ in read_sections(document):
        pass


def _gateway(document: Document) -> None:
    from services.gateway.settings import read
    from services.gateway.transports.upstream.settings import check_files

    settings, _ = read(document)
    check_files(settings.upstreams, document.place("gateway.upstreams"))
    own_credentials(document, Role.GATEWAY)


def _registry(document: Document) -> None:
    from services.registry.catalogue import catalogue
    from services.registry.settings import credentials_of, read
    from services.registry.store.open import check_url

    settings = read(document)
    check_url(settings.registry.store)
    credentials_of(document, settings)
    if settings.models_path is not None:
        catalogue.load(settings.models_path)


def _neuron(document: Document) -> None:
    from services.neuron.settings import read

    read(document)


_LOOKS: Final = {Service.GATEWAY: _gateway, Service.REGISTRY: _registry, Service.NEURON: _neuron}
