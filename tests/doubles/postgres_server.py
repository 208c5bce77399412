"""A real PostgreSQL server from the distribution's packages, for the length of a test module."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator

import pytest

from tests.doubles.processes import free_port

_USER = "postgres"


def binaries() -> pathlib.Path | None:
    """Where Debian puts them, newest version first; None where PostgreSQL is not installed."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    if found:
        return found[0].parent
    on_path = shutil.which("initdb")
    return pathlib.Path(on_path).parent if on_path else None


def _demote() -> Callable[[], None] | None:
    """PostgreSQL refuses to run as root; its package brings a user."""
    if os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam(_USER)
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")

    def demote() -> None:
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)

    return demote


@contextlib.contextmanager
def postgres() -> Generator[str]:
    """A fresh server on loopback; yields a URL. Skips where PostgreSQL is not installed."""
    tools = binaries()
    if tools is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    demote = _demote()
    with tempfile.TemporaryDirectory(prefix="cortex-postgres-") as folder:
        root = pathlib.Path(folder)
        root.chmod(0o777)
        data = root / "data"
        environment = {"LC_ALL": "C", "PATH": f"{tools}:/usr/bin:/bin"}

        def run(*command: str) -> None:
            subprocess.run(
                command, check=True, capture_output=True, preexec_fn=demote, env=environment,
                cwd=root,
            )  # fmt: skip

        run(str(tools / "initdb"), "-D", str(data), "-A", "trust", "-U", "cortex", "-N")
        port = free_port()
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={root}"
        log = root / "log"
        run(
            str(tools / "pg_ctl"), "-D", str(data), "-l", str(log), "-w", "-o",
            f"{options} -c fsync=off", "start",
        )  # fmt: skip
        try:
            yield f"postgresql://cortex@127.0.0.1:{port}/postgres"
        finally:
            run(str(tools / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")


def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Polls until it holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
