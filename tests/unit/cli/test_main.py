import subprocess
import sys

import pytest
from typer.testing import CliRunner

from services import __version__
from services.cli import __main__ as command_line
from tests.doubles.planted import KEY, PROMPT, assert_crash_tells_nothing


def test_the_version_is_printed():
    done = CliRunner().invoke(command_line.app, ["--version"])

    assert (0, f"cortex {__version__}\n") == (done.exit_code, done.stdout)


@pytest.mark.parametrize(
    ("package", "command", "words"),
    [
        (
            "hypercorn",
            "gateway",
            "hypercorn is not installed here: pip install 'cortex-fleet[gateway]'",
        ),
        ("hypercorn", "serve", "pip install 'cortex-fleet[gateway]'"),
        ("jinja2", "neuron", "'cortex-fleet[llamacpp]', or [exllamav2] on a GPU host"),
        ("acp", "acp", "acp is not installed here: pip install 'cortex-fleet[agent]'"),
    ],
)
def test_an_extra_that_is_missing_is_named(package, command, words):
    program = f"import sys; sys.modules[{package!r}] = None; from services.cli.__main__ import main; main()"

    done = subprocess.run(
        [sys.executable, "-c", program, command],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert 69 == done.returncode


def test_a_mistyped_variable_of_a_command_is_named(capsys):
    command_line._warn_of_mistyped(
        {
            "CORTEX_REGISTRY_ADRESS": "a:1",
            "CORTEX_REGISTRY_ADDRESS": "a:1",
            # Kubernetes sets these where a service is called so
            "CORTEX_GATEWAY_PORT": "tcp://a:1",
            "CORTEX_REGISTRY_SERVICE_HOST": "a",
            "CORTEX_GATEWAY__LISTEN": "a:1",
        }
    )

    (line,) = capsys.readouterr().err.splitlines()
    assert "cortex: CORTEX_REGISTRY_ADRESS is not read; CORTEX_REGISTRY_ADDRESS is" == line


def test_a_crash_of_a_command_tells_no_key_or_prompt():
    program = (
        "from services.cli.sse import GatewayClient; from tests.doubles.planted import crash;"
        "GatewayClient.chat = crash;"
        "from services.cli.__main__ import main; main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, "chat", PROMPT, "--model", "m", "--api-key", KEY],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert_crash_tells_nothing(done.stdout + done.stderr)
    assert "a mistake of ours" in done.stderr
    assert 70 == done.returncode
