"""The Helm chart renders to objects that Kubernetes takes, with settings that the services take."""

import json
import os
import pathlib
import shutil
import subprocess
from typing import Any

import jsonschema
import pytest
import yaml

from services.backplane.security import settings as fleet_settings
from services.backplane.settings import load
from services.gateway import settings as gateway_settings
from services.neuron.settings import NeuronSettings
from services.registry import settings as registry_settings
from services.registry.catalogue import catalogue

ROOT = pathlib.Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "cortex"
HELM = os.environ.get("CORTEX_HELM") or shutil.which("helm")
KUBERNETES = "1.30"
# Kinds that are not Kubernetes' own: their makers' schemas are not here.
FOREIGN = {"ServiceMonitor", "PrometheusRule"}
VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": {
        "auth": {"required": True, "existingSecret": "keys"},
        "fleet": {"issuer": {"name": "fleet", "kind": "ClusterIssuer"}},
        "imagePullSecrets": [{"name": "pull"}],
        "gateway": {
            "autoscaling": {"enabled": True},
            "ingress": {
                "enabled": True,
                "className": "nginx",
                "host": "llm.example",
                "tlsSecret": "llm-tls",
            },
            "nodeSelector": {"zone": "cellar"},
        },
        "registry": {"replicas": 3, "postgres": {"existingSecret": "database"}},
        "neurons": [
            {"name": "cpu", "image": {"repository": "cortex-neuron"}},
            {
                "name": "rtx",
                "image": {"repository": "cortex-neuron-cuda", "tag": "mine"},
                "resources": {"limits": {"nvidia.com/gpu": "2"}},
                "runtimeClassName": "nvidia",
                "models": {"claim": "models"},
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "drainSeconds": 120,
                "settings": 'memory_budget_bytes = "20GiB"',
            },
        ],
        "monitoring": {"serviceMonitor": True, "prometheusRule": True, "labels": {"a": "b"}},
    },
    "kubernetes": {
        "registry": {"replicas": 3, "store": "kubernetes"},
        "networkPolicy": {
            "enabled": True,
            "clients": [{"namespaceSelector": {}}],
            "metrics": [{"namespaceSelector": {}}],
            "apiServer": [{"ipBlock": {"cidr": "10.0.0.1/32"}}],
            "egress": [{"to": [{"podSelector": {}}], "ports": [{"port": 4318}]}],
        },
    },
    "open": {
        "auth": {"required": False},
        "fleet": {"insecure": True},
        "networkPolicy": {"enabled": False},
        "neurons": [],
    },
}

needs_helm = pytest.mark.skipif(HELM is None, reason="helm is not here: scripts/test-deploy")


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    assert HELM is not None
    return subprocess.run([HELM, *words], capture_output=True, text=True, timeout=60, check=False)


def template(*words: str, chart: pathlib.Path = CHART) -> subprocess.CompletedProcess[str]:
    version = f"{KUBERNETES}.0"  # as if a cluster of it were there
    return helm("template", "fleet", str(chart), "--kube-version", version, *words)


@pytest.fixture(params=VALUES)
def values(request, tmp_path):
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(VALUES[request.param]))
    return path


@pytest.fixture
def objects(values):
    done = template("--namespace", "llm", "--values", str(values))
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def test_the_charts_rules_are_those_that_are_tested():
    """A copy: a chart holds no links that lead out of it."""
    rules = CHART.parents[1] / "prometheus" / "cortex.rules.yml"

    assert (CHART / "files" / rules.name).read_text() == rules.read_text()


def test_the_values_are_those_of_their_schema():
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    jsonschema.Draft7Validator(schema).validate(defaults)
    for changed in VALUES.values():
        jsonschema.Draft7Validator(schema).validate({**defaults, **changed})


@needs_helm
def test_the_chart_has_no_faults(values):
    done = helm("lint", "--strict", str(CHART), "--values", str(values))

    assert done.returncode == 0, done.stdout + done.stderr


@needs_helm
def test_kubernetes_takes_what_it_renders(objects):
    validate = pytest.importorskip("kubernetes_validate", reason="scripts/test-deploy")
    kinds = set()

    for each in objects:
        kinds.add(each["kind"])
        if each["kind"] not in FOREIGN:
            validate.validate(each, KUBERNETES, strict=True)
    assert {"ConfigMap", "Deployment", "PodDisruptionBudget", "Service", "StatefulSet"} <= kinds


@needs_helm
def test_names_are_unique_and_selectors_find_their_pods(objects):
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    pods = [
        each["spec"]["template"]["metadata"]["labels"]
        for each in objects
        if "template" in each["spec" if "spec" in each else "metadata"]
    ]

    assert len(names) == len(set(names))
    for each in objects:
        if each["kind"] == "Service" and pods:
            selector = each["spec"]["selector"].items()
            found = [labels for labels in pods if selector <= labels.items()]
            assert found or "neuron" in each["metadata"]["name"], each["metadata"]["name"]


@needs_helm
def test_the_services_take_the_settings(objects, tmp_path):
    (files,) = (each["data"] for each in objects if each["kind"] == "ConfigMap" and "data" in each)
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (tmp_path / name).touch()
    for name, text in files.items():
        (tmp_path / name).write_text(text.replace("/etc/cortex/pki", str(tmp_path)))
    front = load(tmp_path / "cortex.toml", {})

    gateway_settings.read(front)
    registry_settings.read(front)
    fleet_settings.read(front)
    catalogue.load(tmp_path / "models.toml")
    for name in files:
        if name.startswith("neuron-"):
            load(tmp_path / name, {}).section("neuron", NeuronSettings)
    pools = [each for each in objects if each["kind"] == "DaemonSet"]
    assert len(pools) == sum(name.startswith("neuron-") for name in files)


@needs_helm
def test_nothing_runs_as_root_or_writes_outside_its_volumes(objects):
    for each in objects:
        pod = each.get("spec", {}).get("template", {}).get("spec") if "spec" in each else None
        if pod is None:
            continue
        assert pod["securityContext"]["runAsNonRoot"] is True
        # only a registry asks the cluster for anything
        may_ask = 'store = "kubernetes' in str(objects) and each["kind"] == "StatefulSet"
        assert pod["automountServiceAccountToken"] is may_ask
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()


@needs_helm
def test_folders_of_a_node_become_the_neurons_own_before_it_starts(objects):
    for each in objects:
        if each["kind"] != "DaemonSet":
            continue
        pod = each["spec"]["template"]["spec"]
        [folders] = pod["initContainers"]
        of_the_node = {one["name"] for one in pod["volumes"] if "hostPath" in one}

        assert of_the_node == {mount["name"] for mount in folders["volumeMounts"]}
        assert folders["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
        for mount in folders["volumeMounts"]:
            assert mount["mountPath"] in folders["command"][-1]


@needs_helm
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"registry": {"replicas": 2}}, "needs a store that they share"),
        ({"registry": {"store": "postgresql"}}, "needs registry.postgres.existingSecret"),
        ({"registry": {"store": "etcd"}}, "store"),
        (
            {"registry": {"store": "kubernetes", "postgres": {"existingSecret": "database"}}},
            "registry.store is kubernetes",
        ),
        ({"gateway": {"ingress": {"enabled": True}}}, "gateway.ingress.host"),
        ({"gatway": {}}, "gatway"),
        ({"networkPolicy": {"enabled": False}}, "fleet.insecure"),
        ({"neurons": [{"name": "UPPER", "image": {"repository": "x"}}]}, "name"),
    ],
)
def test_a_mistake_in_the_values_is_told(tmp_path, changed, words):
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(changed))

    done = template("--values", str(path))

    assert done.returncode
    assert words in done.stderr


@needs_helm
@pytest.mark.parametrize(
    ("name", "told", "untold"),
    [
        ("defaults", ["enforces them"], ["no key is asked for", "may operate"]),
        ("everything", [], ["WARNING"]),
        ("kubernetes", ["--force` would empty them", "get lease fleet-registry"], []),
        ("open", ["no key is asked for", "may operate this fleet"], ["enforces them"]),
    ],
)
def test_whoever_installs_it_is_told_who_may_come_in(tmp_path, name, told, untold):
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(VALUES[name]))

    # only a cluster shows the notes; so they are rendered as an object's text
    copied = shutil.copytree(CHART, tmp_path / "cortex")
    (copied / "templates" / "NOTES.txt").rename(copied / "NOTES.txt")
    shown = 'kind: Shown\nnotes: {{ tpl (.Files.Get "NOTES.txt") . | quote }}\n'
    (copied / "templates" / "shown.yaml").write_text(shown)
    done = template("--values", str(path), "-s", "templates/shown.yaml", chart=copied)
    assert not done.returncode, done.stderr
    notes = " ".join(yaml.safe_load(done.stdout)["notes"].split())

    assert all(words in notes for words in told), notes
    assert not [words for words in untold if words in notes]
