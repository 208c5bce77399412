"""Drives real clients against a whole fleet and writes what came of it. See docs/clients.md."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import msgspec

from services import __version__
from services.gateway.conformance.report import (
    Absent,
    Check,
    Client,
    ConformanceReport,
    as_markdown,
)
from tests.clients import environments
from tests.clients.environments import CACHE, ROOT
from tests.clients.scripted_neuron import MODEL as SCRIPTED
from tests.doubles import tiny_bert
from tests.system import local_fleet as fleets

REAL = "smollm2-135m"
EMBEDDING = "tiny-bert"
SUITE_SECONDS = 900
# Python suites and the pins of their environment; Node suites; programs, run by this interpreter.
PYTHON = {
    "openai_sdk": "sdk",
    "anthropic_sdk": "sdk",
    "published_types": "sdk",
    "ollama_client": "sdk",
    "langchain_client": "frameworks",
    "pydantic_ai_client": "frameworks",
    "openai_agents_client": "frameworks",
    "instructor_client": "instructor",
    "litellm_client": "litellm",
    "llamaindex_client": "llamaindex",
    "dspy_client": "dspy",
    "haystack_client": "agents",
    "smolagents_client": "agents",
    "semantic_kernel_client": "semantic-kernel",
}
NODE = ("openai_sdk", "anthropic_sdk", "ollama_js", "ai_sdk", "langchain_js")
PROGRAMS = (
    "claude_code",
    "codex",
    "opencode",
    "qwen_code",
    "cline",
    "continue_cli",
    "pi",
    "aider",
    "llm",
    "open_responses",
)


def main() -> int:
    """Runs the suites; returns 1 where a check failed or a suite did not run to its end."""
    options = _options()
    clients: list[Client] = []
    # of the code that is about to be started; others may commit meanwhile
    commit = _commit()
    with _fleet() as target:
        for name, command, environment in _suites(options.only):
            print(f"--- {name}", flush=True)
            clients.append(run_suite(name, command, {**target, **environment}))
    report = ConformanceReport(
        cortex=__version__,
        commit=commit,
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        model=f"{REAL} and a scripted neuron",
        clients=tuple(clients),
    )
    _write(report, options.report)
    failed = sum(bool(check.why) for client in clients for check in client.checks)
    passed = sum(not check.why for client in clients for check in client.checks)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="suites whose name holds this word")
    parser.add_argument(
        "--report", type=pathlib.Path, default=CACHE, help="folder of report.json and report.md"
    )
    return parser.parse_args()


@contextlib.contextmanager
def _fleet() -> Iterator[dict[str, str]]:
    """`cortex up` with the real model, a tiny embedder, and a scripted neuron beside them."""
    data = CACHE / "fleet"
    (data / "models").mkdir(parents=True, exist_ok=True)
    bert = tiny_bert.build(data / "models" / "tiny-bert.gguf")
    offered = (ROOT / "services" / "cli" / "up_models.toml").read_text()
    entry = (
        f'[[models]]\nid = "{EMBEDDING}"\nsource = "path:{bert}"\ncapabilities = ["embedding"]\n'
    )
    # the smallest model calls tools for no reason, and Codex always sends some
    alias = f'[aliases.toolless]\nmodel = "{REAL}"\nstrip = ["tools"]\n'
    (data / "models.toml").write_text(f"{offered}\n{entry}\n{alias}")
    fleet = fleets.start(data, environment={})
    scripted = subprocess.Popen(
        [sys.executable, "-m", "tests.clients.scripted_neuron", fleet.registry],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert scripted.stdout is not None
        assert scripted.stdout.readline() == "attached\n"
        yield {
            "CORTEX_URL": fleet.url,
            "CORTEX_MODEL": REAL,
            "CORTEX_SCRIPTED": SCRIPTED,
            "CORTEX_EMBEDDING": EMBEDDING,
        }
    finally:
        scripted.terminate()
        scripted.wait()
        fleet.end()


def _suites(only: str) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Name, command and own environment of each suite; installs what it needs first."""
    environments.node()
    for name, pins in PYTHON.items():
        if only in f"python/{name}":
            python = environments.python(pins)
            yield f"python/{name}", [str(python), "-m", f"tests.clients.python.{name}"], {}
    for name in NODE:
        if only in f"node/{name}":
            yield f"node/{name}", ["node", str(environments.packages("node") / f"{name}.mjs")], {}
    for name in PROGRAMS:
        needs = _program(name) if only in f"programs/{name}" else None
        if needs is not None:
            command = [sys.executable, "-m", f"tests.clients.programs.{name}"]
            yield f"programs/{name}", command, needs


def _program(name: str) -> dict[str, str] | None:
    """What a program's suite has to know; None where it cannot run here."""
    match name:
        case "aider" | "llm":
            return {f"CORTEX_{name.upper()}": str(environments.python(name).with_name(name))}
        case "open_responses":
            environments.packages("node")
            if "CORTEX_OPEN_RESPONSES" not in os.environ:
                print("--- open_responses: not run, CORTEX_OPEN_RESPONSES names no checkout")
                return None
            return {"CORTEX_BUN": str(environments.BUN)}
        case _:
            return {"CORTEX_PROGRAMS": str(environments.packages("programs"))}


def run_suite(name: str, command: list[str], own: dict[str, str]) -> Client:
    """One suite, in a process of its own; a suite that breaks off has failed too."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={
            **inherited,
            **own,
            "PATH": environments.path(),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos'}",
            "PYTHONWARNINGS": "ignore",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=SUITE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        err += f"\nnot done within {SUITE_SECONDS} s"
    client, version, checks, absent = name, "?", [], []
    for line in out.splitlines():
        found = _json(line)
        if found is None:
            continue
        client, version = found.pop("client"), found.pop("version")
        if "reason" in found:
            absent.append(msgspec.convert(found, Absent))
            continue
        checks.append(msgspec.convert(found, Check))
        print(
            f"{'FAILED' if found['why'] else 'passed'}  {found['check']}  {found['why']}",
            flush=True,
        )
    if process.returncode or not checks:
        words = " ".join(err.split())[-400:]
        checks.append(Check(aspect="basics", check="the suite runs to its end", why=words or "?"))
        print(f"FAILED  {words}", flush=True)
    return Client(client=client, version=version, checks=tuple(checks), absent=tuple(absent))


def _json(line: str) -> dict[str, object] | None:
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict) and "aspect" in found:
            return found
    return None


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _write(report: ConformanceReport, folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(report), indent=1)
    (folder / "report.json").write_bytes(text + b"\n")
    (folder / "report.md").write_text(as_markdown(report))


if __name__ == "__main__":
    sys.exit(main())
