"""The chart's objects and Role are exactly what a registry with the store in Kubernetes needs."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest
import yaml

from services.registry.store.kubernetes.address import KubernetesAddress
from services.registry.store.kubernetes.store import KubernetesStore
from services.registry.store.ledger import UsageQuery, UsageRow
from services.registry.store.store import FactKind
from tests.contract.test_chart import needs_helm, template
from tests.doubles.kubernetes_api import KubernetesApi, kubernetes_api

RESOURCES = {"Lease": "leases", "Secret": "secrets", "ConfigMap": "configmaps"}


@pytest.fixture(scope="module")
def rendered():
    done = template("--namespace", "llm", "--set", "registry.store=kubernetes")
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


@pytest.fixture
def api(rendered):
    """An API server as the chart leaves it: its objects are there, and its Role holds."""
    with kubernetes_api() as made:
        for each in copy.deepcopy(rendered):
            if each["kind"] in RESOURCES:
                resource = RESOURCES[each["kind"]]
                made.do("create", path_of(resource), "", yaml_bytes(each))
        (role,) = (each for each in rendered if each["kind"] == "Role")
        made.rules = role["rules"]
        made.asked.clear()
        yield made


def path_of(resource: str) -> str:
    group = "/apis/coordination.k8s.io/v1" if resource == "leases" else "/api/v1"
    return f"{group}/namespaces/llm/{resource}"


def yaml_bytes(body: dict[str, Any]) -> bytes:

    return json.dumps(body).encode()


@needs_helm
async def test_a_registry_makes_do_with_the_role_and_needs_all_of_it(rendered, api: KubernetesApi):
    (settings,) = (
        each["data"]["cortex.toml"]
        for each in rendered
        if each["kind"] == "ConfigMap" and "cortex.toml" in each.get("data", {})
    )
    (url,) = (
        line.split('"')[1] for line in settings.splitlines() if line.strip().startswith("store =")
    )
    address = KubernetesAddress.parse(f"{url}?server={api.url}")
    hour = int(time.time()) // 3600 * 3600
    old = UsageRow(hour - 90 * 86_400, "ada", "tiny", prompt_tokens=1)

    store = KubernetesStore(address, lease_seconds=60.0)
    await store.open()
    assert await store.try_lead("one:1")
    for kind in FactKind:
        await store.put(kind, "a", "b")
    await store.ledger.add_usage("gateway", 1, [old, old._replace(hour=hour)])
    await store.ledger.forget_usage(hour)
    assert len(await store.ledger.usage(UsageQuery(("hour",)))) == 1
    assert await store.renew()
    await store.resign()
    await store.close()

    refused = [one for one in api.asked if one.status == 403]
    assert not refused
    done = {(one.resource, one.verb) for one in api.asked if one.status < 300}
    allowed = {(rule["resources"][0], verb) for rule in api.rules or () for verb in rule["verbs"]}
    assert done == allowed
    named = {name for rule in api.rules or () for name in rule.get("resourceNames", [])}
    asked = {one.name for one in api.asked if one.resource in {"leases", "secrets"}}
    assert named == asked


@needs_helm
@pytest.mark.parametrize("store", ["sqlite", "kubernetes"])
def test_a_registry_goes_out_by_a_policy_where_the_api_server_is_named(store: str):
    words = ("networkPolicy.apiServer[0].ipBlock.cidr=10.0.0.1/32", f"registry.store={store}")
    done = template(*(word for one in words for word in ("--set", one)))
    assert done.returncode == 0, done.stderr
    policies = {
        each["metadata"]["name"]: each["spec"]
        for each in yaml.safe_load_all(done.stdout)
        if each and each["kind"] == "NetworkPolicy"
    }

    out = {name for name, spec in policies.items() if "Egress" in spec["policyTypes"]}
    assert out == ({"fleet-registry"} if store == "kubernetes" else set())
    for name in out:
        first, *others = policies[name]["egress"]
        assert first["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]
        assert {port["port"] for port in first["ports"]} == {443, 6443}
        assert {port["port"] for rule in others for port in rule["ports"]} == {"grpc", 53}


@needs_helm
def test_its_records_outlive_the_release(rendered):
    kept = [each for each in rendered if each["metadata"]["name"].startswith("fleet-registry")]
    records = [each for each in kept if each["kind"] in RESOURCES]

    assert len(records) == 14
    for each in records:
        assert each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        assert not {"data", "spec", "binaryData"} & each.keys()
