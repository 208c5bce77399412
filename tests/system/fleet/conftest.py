"""Fleets of real processes: two neurons with room for one small model each, three models."""

from __future__ import annotations

import pathlib

import pytest

from tests.doubles import scripted
from tests.system.fleet.clients import WORDS
from tests.system.fleet.measuring import measured, pytest_terminal_summary
from tests.system.fleet.processes import Fleet

__all__ = ["measured", "pytest_terminal_summary"]

# A copy takes 60 to 90 MiB with this context: two never fit into one budget.
CONTEXT = 32768
BUDGET = "memory_budget_bytes = 120_000_000"
CATALOGUE = '[[models]]\nid = "{name}"\nsource = "path:{path}"\nmemory = "80MB"\n'
# Swaps within seconds, so that a test sees several.
BRISK = """
[eviction]
minimum_residency_seconds = 1.0
patience_seconds = 2.0
handover_seconds = 1.0
"""


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory):
    """Three endless models that take a known room."""
    folder = tmp_path_factory.mktemp("weights")
    entries = []
    for name, words in WORDS.items():
        path = folder / f"{name}.gguf"
        scripted.build(
            path, scripted.Script(words=words, is_endless=True, name=name, context=CONTEXT)
        )
        entries.append(CATALOGUE.format(name=name, path=path))
    return "\n".join(entries)


@pytest.fixture
def fleet(tmp_path: pathlib.Path, catalogue):
    """A fleet that a test puts together; ended, and shown where the test failed, afterwards."""
    fleet = Fleet(tmp_path, catalogue)
    yield fleet
    codes = fleet.end()
    assert set(codes.values()) <= {0}, codes


@pytest.fixture(scope="session")
def pair(tmp_path_factory, catalogue):
    """A registry, a gateway, and two neurons with room for one model each."""
    fleet = Fleet(tmp_path_factory.mktemp("pair"), catalogue)
    fleet.add_registry(settings=BRISK)
    for name in ("left", "right"):
        fleet.add_neuron(name, settings=BUDGET)
    fleet.add_gateway()
    try:
        fleet.wait("left", "right")
        yield fleet
    finally:
        codes = fleet.end()
    assert set(codes.values()) <= {0}, codes


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Shows the logs of every service where a test failed."""
    report = yield
    if report.when == "call" and report.failed and isinstance(item, pytest.Function):
        fleets = {id(each): each for each in item.funcargs.values() if isinstance(each, Fleet)}
        for fleet in fleets.values():
            report.sections += [(s.name, str(s)) for s in fleet.services.values()]
    return report
