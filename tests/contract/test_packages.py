"""What the packages are made of fits together: groups, names to fill in, the files that scripts name."""

import configparser
import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "packages"
BUILDER = (ROOT / "scripts" / "package").read_text()
NAME = re.compile(r"@([A-Z]+)@")


def test_groups_that_a_unit_asks_for_are_made_where_they_are_missing():
    made = re.findall(r"^g (\S+) ", (FOLDER / "sysusers.conf").read_text(), re.MULTILINE)
    for path in (ROOT / "deploy" / "systemd").glob("*.service"):
        unit = configparser.RawConfigParser(strict=False)
        unit.read(path)
        asked = unit["Service"].get("SupplementaryGroups", "").split()

        assert set(asked) <= set(made), path.name


@pytest.mark.parametrize("file", ["package.spec", "postinst", "prerm"])
def test_every_name_to_fill_in_is_filled_in(file):
    names = set(NAME.findall((FOLDER / file).read_text()))

    assert names
    assert names <= set(NAME.findall(BUILDER))


def test_nothing_lies_there_that_no_package_takes():
    words = re.sub(r"\{(\w+),(\w+)\}(\.\w+)", r"\1\3 \2\3", BUILDER)

    assert all(
        re.search(rf"(?<![\w.]){re.escape(path.name)}(?![\w.])", words) for path in FOLDER.iterdir()
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
@pytest.mark.parametrize("spec", ["", "cortex", "cortex-neuron", "rpm/cortex-neuron.spec"])
def test_copr_gets_one_source_package(tmp_path, spec):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("cortex", "cortex-neuron"):
        (out / f"{name}-0.1.0-1.src.rpm").touch()
    place = tmp_path / "checkout"
    (place / "scripts").mkdir(parents=True)
    (place / "scripts" / "package").symlink_to("/bin/true")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "rpmbuild").symlink_to("/bin/true")

    subprocess.run(
        ["make", "-f", ROOT / ".copr" / "Makefile", "srpm", f"outdir={out}", f"spec={spec}"],
        cwd=place,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        check=True,
    )

    kept = "cortex-neuron" if "neuron" in spec else "cortex"
    assert [f"{kept}-0.1.0-1.src.rpm"] == [path.name for path in out.glob("*.rpm")]
