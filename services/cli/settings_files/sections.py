"""The sections of the settings files: as what each is read, and all of them read."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Any

from services.backplane.security.settings import FleetSettings
from services.backplane.settings import Document


class SettingsFile(enum.StrEnum):
    """The files that have a schema."""

    CORTEX = "cortex"
    NEURON = "neuron"
    MODELS = "models"
    AGENT = "agent"


class Service(enum.StrEnum):
    """The services that read cortex.toml."""

    GATEWAY = "gateway"
    REGISTRY = "registry"
    NEURON = "neuron"


def sections(file: SettingsFile) -> Mapping[str, Any]:
    """Section to the type that it is read as."""
    from services.backplane.logs import LogSettings
    from services.backplane.tracing.settings import TelemetrySettings
    from services.neuron.settings import NeuronSettings

    if file is SettingsFile.NEURON:
        return {
            "neuron": NeuronSettings,
            "fleet": FleetSettings,
            "telemetry": TelemetrySettings,
            "log": LogSettings,
        }
    from services.registry.catalogue.aliases import AliasEntry
    from services.registry.catalogue.file import ModelEntry

    if file is SettingsFile.MODELS:
        return {"models": tuple[ModelEntry, ...], "aliases": dict[str, str | AliasEntry]}
    from services.backplane.security.audit import AuditSettings
    from services.gateway.settings import AuthSettings, GatewaySettings
    from services.registry.settings import EvictionSettings, NeuronEntry, RegistrySettings

    return {
        "gateway": GatewaySettings,
        "auth": AuthSettings,
        "fleet": FleetSettings,
        "registry": RegistrySettings,
        "eviction": EvictionSettings,
        "neurons": tuple[NeuronEntry, ...],
        "neuron": NeuronSettings,
        "audit": AuditSettings,
        "telemetry": TelemetrySettings,
        "log": LogSettings,
    }


def read_sections(document: Document) -> Iterator[tuple[str, Any]]:
    """Every section of cortex.toml by its name, in the order of docs/configuration.md.

    Raises:
        SettingsError: a section cannot be used.
    """
    for section, kind in sections(SettingsFile.CORTEX).items():
        if isinstance(kind, type):
            yield section, document.section(section, kind)
        else:  # an array of tables
            (each, _) = kind.__args__
            yield section, document.entries(section, each)
