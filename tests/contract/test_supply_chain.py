"""What is installed is known: versions with digests, and a bill of materials."""

from __future__ import annotations

import json
import pathlib
import re
import runpy
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[2]
_LOCKED = re.compile(
    r"(?P<name>[\w.-]+)==(?P<version>[\w.+!]+) --hash=sha256:(?P<digest>[0-9a-f]{64})"
)


def locked() -> dict[str, str]:
    """Versions by name; every line has the digest of a file."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    found = [_LOCKED.fullmatch(line) for line in lines if not line.startswith("#")]
    assert None not in found
    return {canonicalize_name(one["name"]): one["version"] for one in found if one is not None}


def test_every_package_that_services_need_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = runpy.run_path(str(ROOT / "scripts" / "lock"))["required"]
    versions = locked()

    for text in required(project):
        requirement = Requirement(text)
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), text


def test_locked_versions_are_those_that_ci_installs():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    installed = dict(line.split("==") for line in lines if "==" in line)
    versions: dict[str, str] = {
        canonicalize_name(name): version for name, version in installed.items()
    }

    assert {} == {
        name: version
        for name, version in locked().items()
        if versions.get(name, version) != version
    }


@pytest.fixture(scope="module")
def bill():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "sbom")], capture_output=True, check=True
    )
    return json.loads(done.stdout)


def test_the_bill_of_materials_has_what_services_need(bill):
    assert ("CycloneDX", "1.6") == (bill["bomFormat"], bill["specVersion"])
    assert "cortex-fleet" == bill["metadata"]["component"]["name"]
    listed = {str(canonicalize_name(one["name"])): one for one in bill["components"]}
    for name in ("grpcio", "starlette", "cryptography", "msgspec", "xllamacpp"):
        assert f"pkg:pypi/{name}@{listed[name]['version']}" == listed[name]["purl"]


def test_the_bill_says_what_needs_what(bill):
    known = {one["bom-ref"] for one in bill["components"]} | {
        bill["metadata"]["component"]["bom-ref"]
    }
    named = {each for one in bill["dependencies"] for each in (one["ref"], *one["dependsOn"])}

    assert known == named
