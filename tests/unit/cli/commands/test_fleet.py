import json

import pytest
from typer.testing import CliRunner

from cortex.v1 import operator_service_pb2 as op
from services.backplane.errors import FleetError, Reason
from services.cli.__main__ import app
from services.cli.commands import fleet


@pytest.fixture
def registry(monkeypatch):
    """Answers, is away once, answers, and then has an error that ends the command."""
    says = [
        op.GetFleetResponse(revision=1),
        FleetError(Reason.REGISTRY_UNAVAILABLE, "It is away."),
        op.GetFleetResponse(revision=2),
        FleetError(Reason.INTERNAL, "It is broken [/x]."),
    ]

    async def answer(_):
        said = says.pop(0)
        if isinstance(said, FleetError):
            raise said
        return said

    monkeypatch.setattr(fleet, "fleet_now", answer)
    monkeypatch.setattr(fleet, "_REFRESH_SECONDS", 0)


@pytest.mark.usefixtures("registry")
def test_a_fleet_that_is_watched_as_json_is_a_line_each_time():
    done = CliRunner().invoke(app, ["status", "--watch", "--json"])

    assert [1, 2] == [json.loads(line)["revision"] for line in done.stdout.splitlines()]
    assert "cortex: It is away.\ncortex: It is broken [/x].\n" == done.stderr
    assert 1 == done.exit_code


@pytest.mark.usefixtures("registry")
def test_an_empty_fleet_as_json_has_its_lists():
    done = CliRunner().invoke(app, ["status", "--json"])

    assert ([], 1) == (json.loads(done.stdout)["neurons"], json.loads(done.stdout)["revision"])


@pytest.mark.usefixtures("registry")
def test_a_fleet_that_is_watched_in_a_pipe_is_a_table_each_time():
    done = CliRunner().invoke(app, ["status", "--watch"])

    assert 3 == done.stdout.count("┃ neuron ┃ state ┃ address")
