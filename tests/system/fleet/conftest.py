"""Fleets of real processes: two neurons with room for one small model each, three models."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from tests.system.fleet.measuring import measured, pytest_terminal_summary
from tests.system.fleet.models import build_models
from tests.system.fleet.processes import Fleet
from tests.system.fleet.secure import SecureFleet

__all__ = ["measured", "pytest_terminal_summary"]

# Room for one of the models.
BUDGET = "memory_budget_bytes = 120_000_000"
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
    return build_models(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def fleet(tmp_path: pathlib.Path, catalogue):
    """A fleet that a test puts together; ended, and shown where the test failed, afterwards."""
    yield from _ended(Fleet(tmp_path, catalogue))


@pytest.fixture
def secure_fleet(tmp_path: pathlib.Path, catalogue):
    """The same, with an authority of its own."""
    yield from _ended(SecureFleet(tmp_path, catalogue))


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


def _ended(fleet: Fleet) -> Iterator[Fleet]:
    yield fleet
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
