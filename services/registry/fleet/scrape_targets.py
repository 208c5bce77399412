"""Where the neurons are scraped, as Prometheus's service discovery over HTTP reads it.

Format: https://prometheus.io/docs/prometheus/latest/http_sd/
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from services.registry.fleet.records import Member

_NO_LABEL: Final = re.compile(r"[^a-zA-Z0-9_]")


class TargetGroup(msgspec.Struct, frozen=True):
    """Addresses that Prometheus scrapes together, and their labels."""

    targets: tuple[str, ...]
    labels: dict[str, str]


def scrape_targets(members: Iterable[Member]) -> list[TargetGroup]:
    """A group for each neuron that serves metrics, lost ones too until they are forgotten."""
    return [
        TargetGroup((member.identity.metrics_address,), _labels(member))
        for member in sorted(members, key=lambda one: one.name)
        if member.identity.metrics_address
    ]


def _labels(member: Member) -> dict[str, str]:
    identity = member.identity
    state = "lost" if member.is_lost else "cordoned" if member.is_cordoned else "attached"
    own = {
        f"__meta_cortex_label_{_NO_LABEL.sub('_', name)}": value
        for name, value in identity.labels.items()
    }
    return {
        "neuron": identity.name,
        "__meta_cortex_state": state,
        "__meta_cortex_address": identity.address,
        "__meta_cortex_version": identity.version,
        **own,
    }
