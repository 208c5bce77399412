"""What the console orders is what happens: a real gateway before a real registry."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import msgspec
import pytest
import structlog.testing

from services.backplane.security.authority import create, issue
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.roles import Role
from services.backplane.security.settings import FleetSettings
from services.backplane.settings import Document
from services.gateway.settings import AuthSettings
from tests.doubles.registry_neuron import MIB, ScriptedNeuron, eventually
from tests.doubles.registry_stand_ins import Fleet as RegistryFleet
from tests.doubles.registry_stand_ins import document, running_fleet
from tests.integration.gateway.event_reader import events
from tests.integration.gateway.fleet import Fleet

MODELS = """
[[models]]
id = "a"
source = "path:/a"
memory = "10MiB"
[[models]]
id = "b/c"
source = "path:/b"
memory = "10MiB"
"""


@contextlib.asynccontextmanager
async def gateway_before(
    registry: str, credentials: FleetCredentials | None = None
) -> AsyncGenerator[Fleet]:
    """A gateway that follows this registry."""
    fleet = Fleet()
    fleet.registry.address = registry
    await fleet.start_gateway(AuthSettings(), credentials=credentials)
    try:
        yield fleet
    finally:
        await fleet.stop()


@pytest.fixture
async def operated(tmp_path: pathlib.Path) -> Any:
    """A gateway, the registry behind it, and one neuron."""
    async with running_fleet(document(tmp_path, MODELS)) as registry:
        neuron = ScriptedNeuron("one", capacity=15 * MIB)
        await registry.add(neuron)
        async with gateway_before(registry.address) as gateway:
            yield gateway.client, registry, neuron


Operated = tuple[httpx.AsyncClient, RegistryFleet, ScriptedNeuron]


async def test_a_load_streams_to_placed(operated: Operated) -> None:
    client, _, neuron = operated

    async with events(client, "/ui/load", json={"model": "b/c", "neuron": "one"}) as load:
        seen = await load.rest()

    assert [name for name, _ in seen if name != "beat"][-1] == "done"
    last = [told for name, told in seen if name == "step"][-1]
    assert (last["kind"], last["neuron"]) == ("placed", "one")
    assert neuron.loaded() == ["b/c"]


async def test_a_page_sees_the_load_in_its_events(operated: Operated) -> None:
    client, _, neuron = operated
    neuron.script("a").gate.clear()
    async with events(client) as page:
        await page.until("snapshot")
        answer = await client.post("/ui/load", json={"model": "a", "wait": False})
        waiting = await page.until("pending", lambda told: told["placements"])
        neuron.script("a").gate.set()
        held = await page.until("neuron", lambda told: told["instances"])

    assert answer.status_code == 202
    assert waiting["placements"][0]["model"] == "a"
    assert held["instances"][0]["model"] == "a"


async def test_a_client_that_leaves_gives_an_attached_load_up(operated: Operated) -> None:
    client, _, neuron = operated
    neuron.script("a").gate.clear()

    async with events(client, "/ui/load", json={"model": "a", "attached": True}) as load:
        await load.until("step", lambda told: told["kind"] == "loading")
        await eventually(lambda: neuron.loads)

    await eventually(lambda: neuron.cancelled_loads == ["a"])


async def test_a_load_that_is_not_attached_goes_on(operated: Operated) -> None:
    client, _, neuron = operated
    neuron.script("a").gate.clear()

    async with events(client, "/ui/load", json={"model": "a"}) as load:
        await load.until("step", lambda told: told["kind"] == "loading")
    neuron.script("a").gate.set()

    await eventually(lambda: neuron.loaded() == ["a"])


async def test_what_the_registry_refuses_has_its_status_and_words(operated: Operated) -> None:
    client, _, _ = operated

    unknown = await client.post("/ui/load", json={"model": "nobody"})
    unloaded = await client.post("/ui/unload", json={"model": "a"})
    strange = await client.post("/ui/drain", json={"neuron": "two"})

    assert (unknown.status_code, unloaded.status_code, strange.status_code) == (404, 404, 404)
    assert "not loaded" in unloaded.json()["error"]["message"]
    assert strange.json()["error"]["param"] == "neuron"


async def test_an_unload_tells_what_is_left(operated: Operated) -> None:
    client, registry, neuron = operated
    await registry.placed("a")
    neuron.work("a", 2)
    await registry.heard(neuron)

    async with events(client, "/ui/unload", json={"model": "a"}) as unload:
        first = await unload.until("step")
        neuron.work("a", 0)
        rest = await unload.rest()

    assert (first["instances_left"], first["active_requests_left"]) == (1, 2)
    assert rest[-1][0] == "done"
    assert neuron.loaded() == []


async def test_a_drain_cordons_and_unloads(operated: Operated) -> None:
    client, registry, neuron = operated
    await registry.placed("a")

    async with events(client) as page:
        await page.until("snapshot")
        async with events(client, "/ui/drain", json={"neuron": "one"}) as drain:
            await drain.rest()
        state = await page.until("neuron", lambda told: not told["instances"])

    assert neuron.loaded() == []
    assert state["state"] == "cordoned"


async def test_cordons_pins_and_reloads_are_told_back(operated: Operated) -> None:
    client, _, _ = operated

    cordoned = (await client.post("/ui/cordon", json={"neuron": "one"})).json()
    free = (await client.post("/ui/uncordon", json={"neuron": "one"})).json()
    pinned = (await client.post("/ui/pin", json={"model": "a"})).json()
    unpinned = (await client.post("/ui/unpin", json={"model": "a"})).json()
    reloaded = (await client.post("/ui/reload", json={})).json()

    assert (cordoned["neuron"]["state"], free["neuron"]["state"]) == ("cordoned", "ready")
    assert (pinned, unpinned) == (
        {"model": "a", "pinned": True},
        {"model": "a", "pinned": False},
    )
    assert reloaded["changed"] == []


async def test_an_explanation_names_every_candidate(operated: Operated) -> None:
    client, _, _ = operated

    told = (await client.get("/ui/explain", params={"model": "b/c"})).json()

    assert (told["model"], told["verdict"]) == ("b/c", "free_fit")
    assert [(one["neuron"], one["feasible"]) for one in told["candidates"]] == [("one", True)]


async def test_every_operation_is_one_line_of_the_log(operated: Operated) -> None:
    client, _, _ = operated

    with structlog.testing.capture_logs() as logged:
        await client.post("/ui/pin", json={"model": "a"})
        await client.post("/ui/unload", json={"model": "b/c"})

    told = [
        (line["event"], line["operation"], line["model"])
        for line in logged
        if line["event"].startswith("console.")
    ]
    assert told == [("console.operation", "pin", "a"), ("console.refused", "unload", "b/c")]


@pytest.mark.parametrize(("roles", "status"), [((), 403), ((Role.OPERATOR,), 200)])
async def test_with_certificates_the_gateway_s_must_be_an_operator_s_to_operate(
    tmp_path: pathlib.Path, roles: tuple[Role, ...], status: int
) -> None:
    def credentials(*held: Role) -> FleetSettings:
        name = "+".join(role.value for role in held)
        made = issue(tmp_path / "pki", held, out=tmp_path / name, days=2)
        return FleetSettings(
            ca=str(tmp_path / "pki" / "ca.pem"),
            certificate=str(made.certificate),
            key=str(made.key),
        )

    create(tmp_path / "pki")
    base = document(tmp_path, MODELS)
    served = msgspec.structs.asdict(credentials(Role.REGISTRY))
    settings = Document({**base.tables, "fleet": served}, "test")
    own = FleetCredentials(credentials(Role.GATEWAY, *roles))
    async with running_fleet(settings) as registry, gateway_before(registry.address, own) as fleet:
        async with events(fleet.client) as page:
            visitor = (await page.until("snapshot"))["visitor"]
        explained = await fleet.client.get("/ui/explain", params={"model": "a"})
        pinned = await fleet.client.post("/ui/pin", json={"model": "a"})

    assert explained.status_code == 200
    assert pinned.status_code == status
    assert bool(visitor["operations_refused"]) == (status == 403)
    if status == 403:
        assert "cortex pki issue gateway operator" in pinned.json()["error"]["message"]
