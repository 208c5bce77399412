"""`cortex top` beside a real fleet, on a terminal and in a script."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from typing import Any

import pytest

from tests.system.fleet.clients import Clients, has_text
from tests.system.fleet.processes import PATIENCE_SECONDS, Fleet

LEFT = b"\x1b[?1049l"  # the alternate screen


class Terminal:
    """`cortex top` on a terminal of its own."""

    def __init__(self, fleet: Fleet) -> None:
        self._ours, self._theirs = pty.openpty()
        termios.tcsetwinsize(self._theirs, (50, 200))
        self._before = termios.tcgetattr(self._theirs)
        self.output = b""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CORTEX_")}
        # a terminal of its own: Ctrl-C on it reaches nobody else, and it even where the tests' own
        # process ignores that
        shell = ["env", "--default-signal=INT", "setsid", "--ctty"]
        command = [*shell, sys.executable, "-m", "services.cli", "top"]
        self._process = subprocess.Popen(
            [*command, "--registry", fleet.registries[0], "--gateway", fleet.url],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env={**environment, "TERM": "xterm-256color"},
        )

    def shows(self, *words: str) -> None:
        """Waits until all of it was shown."""
        self._read_until(lambda: all(word.encode() in self.output for word in words))

    def press(self, sign: str) -> int:
        """Presses a key behind which it ends; the exit code."""
        os.write(self._ours, sign.encode())
        self._read_until(lambda: self._process.poll() is not None)
        return self._process.wait()

    @property
    def is_restored(self) -> bool:
        """Whether the terminal is as it was."""
        return termios.tcgetattr(self._theirs) == self._before and LEFT in self.output

    def close(self) -> None:
        """Ends it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def _read_until(self, condition: Any) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            is_met = condition()
            while select.select([self._ours], [], [], 0 if is_met else 0.1)[0]:
                self.output += os.read(self._ours, 1 << 16)
            if is_met:
                return
            assert time.monotonic() < deadline, self.output[-4000:]


@pytest.fixture
def terminal(pair):
    terminal = Terminal(pair)
    yield terminal
    terminal.close()


@pytest.mark.parametrize(("sign", "code"), [("q", 0), ("\x03", 130)])
async def test_it_shows_the_fleet_until_it_is_left_and_leaves_the_terminal_as_it_was(
    pair, terminal, sign, code
):
    async with Clients(pair.url) as clients:
        answer, running = clients.begin("alpha", 20_000)
        await has_text(answer)
        terminal.shows("alpha", "READY", "left", "1 streams", "tokens/s", "q quits")

        assert code == terminal.press(sign)
        assert terminal.is_restored
        running.cancel()


async def test_a_script_gets_it_once(pair):
    async with Clients(pair.url) as clients:
        answer, running = clients.begin("alpha", 20_000)
        await has_text(answer)
        told = pair.cli("top", "--once", "--gateway", pair.url)
        as_json = json.loads(pair.cli("top", "--once", "--json", "--gateway", pair.url).stdout)
        running.cancel()

    assert "alpha" in told.stdout
    assert {"left", "right"} == {n["identity"]["name"] for n in as_json["fleet"]["neurons"]}
    assert "" == as_json["gateway"]["problem"]


def test_without_a_gateway_the_rest_is_shown(pair):
    told = pair.cli("top", "--once", "--gateway", "http://127.0.0.1:1")

    assert "left" in told.stdout
    assert "gateway: " in told.stderr
