import json
import os

import pytest
from typer.testing import CliRunner

from services.cli.__main__ import app


def run(*arguments):
    return CliRunner().invoke(app, ["logs", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs"


def test_nothing_that_a_client_has_sent_does_something_to_the_terminal(folder):
    name = "\x1b]0;x\x07\nforged\ud800\u202e"
    entry = {"timestamp": "2026-01-01T00:00:00Z", "event": "request.finished", "model": name}
    (folder / "gateway.log").write_text(json.dumps(entry) + "\n\x1b[2Jraw\ttext\n")

    done = run("--data-dir", folder.parent)

    told, raw = done.stdout.splitlines()
    assert 0 == done.exit_code
    assert r"model=\x1b]0;x\x07\nforged\ud800\u202e" in told
    assert raw.endswith("\\x1b[2Jraw\ttext")


def test_what_is_not_there_or_may_not_be_read_is_said_in_a_line(tmp_path, folder):
    missing = run("--data-dir", tmp_path / "nowhere")
    (folder / "gateway.log").write_text("x\n")
    (folder / "gateway.log").chmod(0)
    forbidden = run("--data-dir", tmp_path)

    assert (1, True) == (missing.exit_code, "there are no logs in" in missing.stderr)
    if os.geteuid():  # root may
        assert 1 == forbidden.exit_code
        assert "gateway.log: cannot be read: Permission denied" in " ".join(
            forbidden.stderr.split()
        )
