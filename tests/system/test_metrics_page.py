"""docs/reference/metrics.md has every metric of a fleet that has served something, and no other."""

import json
import pathlib
import re
import urllib.request

import pytest
from prometheus_client import parser

from tests.doubles import scripted
from tests.doubles.processes import free_port
from tests.system import local_fleet

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    data = tmp_path_factory.mktemp("metrics")
    (data / "models").mkdir()
    path = data / "models" / "alpha.gguf"
    scripted.build(path, scripted.Script(words=["Hello"], name="alpha"))
    (data / "models.toml").write_text(f'[[models]]\nid = "alpha"\nsource = "path:{path}"\n')
    listening = {name: f"127.0.0.1:{free_port()}" for name in ("registry", "neuron")}
    environment = {
        f"CORTEX_{name.upper()}__METRICS_LISTEN": address for name, address in listening.items()
    }
    fleet = local_fleet.start(data, "--model", "alpha", environment=environment)
    body = json.dumps({"model": "alpha", "messages": [{"role": "user", "content": "Hi"}]})
    request = urllib.request.Request(
        f"{fleet.url}/v1/chat/completions", body.encode(), {"content-type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=30).read()
    urls = [fleet.metrics_url, *(f"http://{address}/metrics" for address in listening.values())]
    yield [urllib.request.urlopen(url, timeout=60).read().decode() for url in urls]
    assert fleet.end() == 0


def test_the_page_has_every_metric_and_no_other(pages):
    served = {
        (f"{family.name}_total" if family.type == "counter" else family.name): family
        for page in pages
        for family in parser.text_string_to_metric_families(page)
        if family.name.startswith("cortex_")
    }
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)

    assert [(name, family.type) for name, family in sorted(served.items())] == sorted(
        (name, kind) for name, kind, _, _ in rows
    ), "scripts/reference metrics URL..."
    for name, _, labels, meaning in rows:
        assert meaning == served[name].documentation
        seen = {label for sample in served[name].samples for label in sample.labels} - {"le"}
        assert seen <= set(re.findall(r"`(\w+)`", labels)), name
