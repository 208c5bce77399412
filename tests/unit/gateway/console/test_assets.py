"""The files of the page: small, whole, and served under a policy that lets nothing else in."""

import gzip
import hashlib
import pathlib
import re

import pytest

from services.gateway.console import assets

WEB = pathlib.Path(assets.__file__).parent / "web"
MOST_BYTES = 150 << 10
FILES = sorted(path for path in WEB.rglob("*") if path.is_file())
OURS = [path for path in FILES if "vendor" not in path.parts]
SCRIPTS = [path for path in OURS if path.suffix == ".js"]


def test_all_of_it_is_small():
    packed = sum(len(gzip.compress(path.read_bytes(), 9)) for path in FILES)

    assert packed <= MOST_BYTES


def test_every_file_is_served():
    assert {path.relative_to(WEB).as_posix() for path in FILES} == set(assets.load())


def test_no_module_is_long_and_no_folder_wide():
    assert [path.name for path in SCRIPTS if len(path.read_text().splitlines()) > 300] == []
    for folder in {path.parent for path in SCRIPTS}:
        assert len(list(folder.glob("*.js"))) <= 16


def test_libraries_are_those_of_the_list():
    rows = re.findall(
        r"^\| (\S+\.js) \| .* ([0-9a-f]{64}) \|$",
        (WEB / "vendor/README.md").read_text(),
        re.MULTILINE,
    )
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (WEB / "vendor").glob("*.js")
    }

    assert dict(rows) == digests


@pytest.mark.parametrize("path", [*SCRIPTS, *(WEB / "vendor").glob("*.js")], ids=lambda p: p.name)
def test_modules_import_files_that_are_there(path):
    for name in re.findall(r"""(?m)(?:\bfrom|^import)\s*["'](\.[^"']+)["']""", path.read_text()):
        assert (path.parent / name).is_file(), name


@pytest.mark.parametrize("path", OURS, ids=lambda p: p.name)
def test_nothing_is_taken_from_elsewhere(path):
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")

    assert re.findall(r"""(?:src|href|url|import|from)[=(\s"']*https?://""", text) == []
    assert 'style="' not in text
    assert "<script>" not in text


def test_the_policy_lets_nothing_in_but_the_gateway_s_own():
    rules = dict(rule.strip().split(" ", 1) for rule in assets.POLICY.split(";"))

    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert not re.search(r"unsafe|https?:|\*", assets.POLICY)
