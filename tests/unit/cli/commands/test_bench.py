import pytest
from typer.testing import CliRunner

from services.cli.__main__ import app
from services.cli.sse import ChatFailedError, GatewayClient, Piece


@pytest.mark.parametrize(("failures", "code"), [(0, 0), (1, 0), (2, 1)])
def test_a_bench_fails_where_no_answer_came(monkeypatch, failures, code):
    left = [failures]

    def chat(*_, **__):
        if left[0]:
            left[0] -= 1
            raise ChatFailedError("no [/room]")
        yield Piece("text", "hi")

    monkeypatch.setattr(GatewayClient, "chat", chat)

    done = CliRunner().invoke(app, ["bench", "-m", "m", "--streams", "1", "--requests", "2"])

    assert code == done.exit_code
    assert f"{failures} (no [/room])" in done.stdout or not failures
    assert ("every answer failed" in done.stderr) == bool(code)
