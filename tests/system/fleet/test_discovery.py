"""Where the neurons are scraped, as the registry tells Prometheus."""

from __future__ import annotations

from typing import Any

import httpx

from tests.doubles.processes import free_port
from tests.system.fleet.conftest import BUDGET
from tests.system.fleet.processes import Fleet, until


def discovered(address: str) -> list[dict[str, Any]]:
    """What the registry answers, by the name of the neuron."""
    answer = httpx.get(f"http://{address}/discovery/neurons", trust_env=False)
    assert answer.headers["content-type"] == "application/json"
    if answer.status_code == 503:  # it does not lead yet
        return []
    found: list[dict[str, Any]] = answer.raise_for_status().json()
    return found


def states(address: str) -> dict[str, str]:
    return {
        each["labels"]["neuron"]: each["labels"]["__meta_cortex_state"]
        for each in discovered(address)
    }


def test_every_neuron_is_found_scraped_and_listed_while_it_is_lost(fleet: Fleet):
    registry = f"127.0.0.1:{free_port()}"
    fleet.add_registry(settings="lease_seconds = 2.0", metrics=registry)
    for name in ("left", "right"):
        fleet.add_neuron(name, settings=BUDGET, metrics="127.0.0.1:0")
    fleet.add_neuron("quiet", settings=BUDGET)
    until(lambda: {"left", "right", "quiet"} <= fleet.live())

    assert {"left": "attached", "right": "attached"} == states(registry)
    for each in discovered(registry):
        (target,) = each["targets"]
        page = httpx.get(f"http://{target}/metrics", trust_env=False).text
        assert 'cortex_build_info{service="neuron"' in page
    assert "cortex_registry_leader" in httpx.get(f"http://{registry}/metrics").text

    fleet["right"].kill()
    until(lambda: states(registry).get("right") == "lost")
    assert "attached" == states(registry)["left"]
