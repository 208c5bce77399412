import pytest
from typer.testing import CliRunner

from services.cli.__main__ import app

NOBODY = "127.0.0.1:1"


@pytest.mark.parametrize("command", ["load", "unload", "pin", "explain", "drain"])
def test_a_name_that_looks_like_markup_is_no_crash(command):
    done = CliRunner().invoke(app, [command, "[/x]", "--registry", NOBODY])

    assert 1 == done.exit_code
    assert done.stderr.startswith("cortex: ")
