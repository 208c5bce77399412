"""Names that libraries do not promise to keep, and that we lean on: all are there.

What fails here after an update says which code of ours has to be looked at before the bound in
pyproject.toml is raised. Hypercorn's have a test of their own: tests/integration/http1/test_seam.py.
"""

import inspect
import pathlib
import re
import tomllib
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.gateway.telemetry.counters import SummedHistogram

ROOT = pathlib.Path(__file__).parents[2]


def test_a_histogram_of_prometheus_client_has_a_sum_and_its_buckets():
    registry = CollectorRegistry()
    histogram = SummedHistogram("x", "x", (), buckets=(1.0, 2.0), registry=registry)
    for name in ("_sum", "_buckets"):
        assert hasattr(histogram, name), (
            f"prometheus_client's Histogram has no {name}: services/gateway/telemetry/counters.py adds there"
        )

    histogram.take([1, 0, 2], 7.5)

    assert 7.5 == registry.get_sample_value("x_sum")
    assert [1.0, 1.0, 3.0] == [
        registry.get_sample_value("x_bucket", {"le": le}) for le in ("1.0", "2.0", "+Inf")
    ]


def test_huggingface_hub_downloads_from_an_offset_into_an_open_file():
    hub = pytest.importorskip("huggingface_hub")
    file_download = pytest.importorskip("huggingface_hub.file_download")
    used = {"url", "temp_file", "resume_size", "headers", "expected_size"}

    assert hasattr(file_download, "http_get"), (
        "huggingface_hub.file_download.http_get is gone: services/neuron/sources/hub_download.py calls it"
    )
    missing = used - set(inspect.signature(file_download.http_get).parameters)

    assert not missing, f"huggingface_hub's http_get takes no {', '.join(sorted(missing))} any more"
    assert callable(hub.utils.build_hf_headers)


@pytest.mark.parametrize("package", ["prometheus-client", "huggingface-hub", "hypercorn"])
def test_whose_names_are_private_has_an_upper_bound(package: str):
    project: Any = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *(one for extra in extras for one in extra)]

    found = [one for one in asked if re.split(r"[<>=!~\[ ]", one)[0] == package]

    assert found
    assert all("<" in one or "==" in one for one in found)
