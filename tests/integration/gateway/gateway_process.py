"""A gateway as a process of its own, as a service manager would start it."""

from __future__ import annotations

import asyncio
import os
import pathlib
import re
import socket
import sys

import httpx

SECONDS = 60.0


class Process:
    """One `python -m services.gateway`."""

    def __init__(self, folder: pathlib.Path, config: str = "cortex.toml") -> None:
        self._config = folder / config
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    def write(self, text: str) -> None:
        """Puts other settings in the file."""
        self._config.write_text(text)

    async def start(
        self, text: str, *, passed: socket.socket | None = None, **variables: str
    ) -> None:
        """Starts it.

        Args:
            text: its settings.
            passed: the listening socket that it is given, as systemd does.
            variables: of its environment, besides those of this process.
        """
        self.write(text)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CORTEX_")}
        command = [sys.executable, "-m", "services.gateway", "--config", str(self._config)]
        descriptors = []
        if passed is not None:
            descriptors = [passed.fileno()]
            given = f'export LISTEN_FDS=1 LISTEN_PID=$$; exec 3<&{passed.fileno()}; exec "$@"'
            command = ["bash", "-c", given, "-", *command]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stderr=asyncio.subprocess.PIPE,
            env=environment | variables,
            pass_fds=descriptors,
        )

    async def line(self, pattern: str) -> str:
        """The next line of the log that holds a pattern."""
        assert self.process.stderr is not None
        async with asyncio.timeout(SECONDS):
            while line := await self.process.stderr.readline():
                if re.search(pattern, line.decode()):
                    return line.decode()
        raise AssertionError(f"no line with {pattern!r}")

    async def ended(self) -> tuple[int, str]:
        async with asyncio.timeout(SECONDS):
            _, errors = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, errors.decode()


def settings(registry: str, *, port: int = 0, more: str = "") -> str:
    return (
        f'[gateway]\nlisten = "127.0.0.1:{port}"\nmetrics_listen = ""\n'
        f'registry = ["{registry}"]\n{more}\n[log]\nformat = "json"\n'
    )


async def ready(port: int) -> None:
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(SECONDS):
        while True:
            try:
                if (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
