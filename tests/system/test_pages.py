"""The commands of the pages that a newcomer reads, run against a fleet of `cortex up` as they stand there."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ("README.md", "docs/start.md", "docs/operating.md", "docs/llamacpp.md")
# What begins so is not run here, and why.
ELSEWHERE = {
    "scripts/": "the fixture has done that, or CI does",
    "export PATH": "the environment of every command",
    "ANTHROPIC_BASE_URL": "scripts/test-clients",
    "grpcurl": "tests/system/test_cookbook.py runs the same lines; grpcurl itself is not installed",
    "cortex pull": "needs a hub: tests/integration/registry and tests/unit/cli",
    "cortex rm": "of what was pulled",
    "cortex status --watch": "has no end",
    "cortex bench": "a minute; tests/unit/cli",
    "cortex chat #": "a dialogue",
    "cortex cordon": "the only neuron",
    "pip install": "the environment of every test",
    "cortex init ": "asks, or writes to /etc/cortex: tests/system/test_init.py",
    "cortex config show --changed": "of settings; the fixture has none",
    "cortex logs": "of a fleet with the usual data folder: tests/system/test_logs.py",
    "cortex events --follow": "has no end",
    "cortex top #": "has no end: tests/system/fleet/test_top.py",
    "journalctl": "under systemd",
    "kill -USR2": "tests/system/fleet: a gateway of its own",
    "apt install": "scripts/test-packages",
    "systemctl": "scripts/test-packages",
}
PLACEHOLDERS = {"MODEL": "smollm2-135m", "FILE": "request.json"}
REQUEST = '{"model": "smollm2-135m", "messages": [{"role": "user", "content": "Hi"}]}'


def commands():
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip() and not line.startswith("#"):
                    yield pytest.param(line, id=f"{page}: {line[:60]}")


@pytest.fixture(scope="module")
def shell(real_fleet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shell")
    (folder / "request.json").write_text(REQUEST)
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    script = bin_folder / "cortex"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m services.cli "$@"\n')
    script.chmod(0o755)
    addresses = {
        "http://127.0.0.1:31313": real_fleet.url,
        "127.0.0.1:31315": real_fleet.registry,
    }
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "CORTEX_GATEWAY_URL": real_fleet.url,
        "CORTEX_REGISTRY_ADDRESS": real_fleet.registry,
    }

    def run(line: str) -> subprocess.CompletedProcess[str]:
        for known, real in {**addresses, **PLACEHOLDERS}.items():
            line = re.sub(rf"(?<!\w){re.escape(known)}(?!\w)", real, line)
        return subprocess.run(
            ["/bin/bash", "-euc", line],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.mark.parametrize("line", list(commands()))
def test_a_command_of_a_page_works(shell, line):
    bare = re.sub(r"\s+", " ", line)
    for start, why in ELSEWHERE.items():
        if bare.startswith(start):
            pytest.skip(why)

    done = shell(line)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() or done.stderr.strip()
    if line.startswith("curl"):
        assert '"error"' not in done.stdout


def test_what_is_not_run_is_still_there():
    text = "\n".join((ROOT / page).read_text() for page in PAGES)

    for start in ELSEWHERE:
        assert start.removesuffix(" #") in text, start
