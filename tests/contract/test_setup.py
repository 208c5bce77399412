"""`scripts/setup` in a checkout of its own, with an interpreter that only does as if."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import pytest

# Writes what venv and pip do: commands whose first line names the place that they were made for.
# The word behind it tells of which making they are.
PYTHON = """\
#!/bin/sh
echo "$*" >>"$CALLS"
here=$PWD/.venv/bin
if [ "$2" = venv ]; then
  [ "$3" = --clear ] && rm -rf .venv
  mkdir -p "$here"
  cp "$0" "$here/python"
  for name in pip ruff; do printf '#!%s/interpreter\\n' "$here" >"$here/$name"; done
  printf '#!/bin/sh\\necho works\\n' >"$here/interpreter"
  chmod +x "$here"/*
elif [ "$2" = pip ]; then
  printf '#!%s/interpreter\\n' "$here" >"$here/cortex"
  chmod +x "$here/cortex"
fi
"""


class Checkout:
    def __init__(self, folder: pathlib.Path, calls: pathlib.Path) -> None:
        self.folder = folder
        self._calls = calls
        self._python = calls.with_name("python")

    def make(self) -> None:
        for name in ("pyproject.toml", "constraints.txt", "protos/build_hook.py"):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(name)
        (self.folder / "protos/cortex/v1").mkdir(parents=True)
        (self.folder / "protos/cortex/v1/model.proto").touch()
        (self.folder / "scripts").mkdir()
        shutil.copy(pathlib.Path("scripts/setup"), self.folder / "scripts/setup")
        self._python.write_text(PYTHON)
        self._python.chmod(0o755)

    def set_up(self) -> list[str]:
        """Runs it; returns what was asked of the interpreters."""
        self._calls.write_text("")
        environment = {**os.environ, "PYTHON": str(self._python), "CALLS": str(self._calls)}
        subprocess.run([self.folder / "scripts/setup"], check=True, timeout=60, env=environment)
        return self._calls.read_text().splitlines()

    def says(self, command: str) -> str:
        found = self.folder / ".venv/bin" / command
        return subprocess.run([found], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> Checkout:
    made = Checkout(tmp_path / "a", tmp_path / "calls")
    made.make()
    return made


def test_what_is_set_up_is_left_alone(checkout: Checkout):
    assert 2 == len(checkout.set_up())

    assert [] == checkout.set_up()


def test_an_edited_list_of_packages_is_installed_into_what_is_there(checkout: Checkout):
    checkout.set_up()
    (checkout.folder / "constraints.txt").write_text("other")

    (install,) = checkout.set_up()

    assert "install" in install


@pytest.mark.parametrize("way", [shutil.move, shutil.copytree])
def test_a_checkout_at_another_place_gets_commands_that_run(
    checkout: Checkout, tmp_path: pathlib.Path, way: object
):
    checkout.set_up()
    assert callable(way)
    way(checkout.folder, tmp_path / "b")
    shutil.rmtree(checkout.folder, ignore_errors=True)
    there = Checkout(tmp_path / "b", tmp_path / "calls")

    there.set_up()

    assert "works\n" == there.says("cortex") == there.says("ruff")
    assert [] == there.set_up()


def test_a_checkout_that_shares_an_environment_by_a_link_makes_none(
    checkout: Checkout, tmp_path: pathlib.Path
):
    checkout.set_up()
    other = Checkout(tmp_path / "b", tmp_path / "calls")
    other.make()
    (other.folder / ".venv").symlink_to(checkout.folder / ".venv")

    assert [] == other.set_up()
