"""Hosts of their own on one machine: network namespaces that a bridge joins.

To be used inside a network namespace (`unshare --net`), whose own interfaces nobody else has.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Generator, Sequence

from tests.system.fleet.processes import until

BRIDGE = "cortex0"
OWN_ADDRESS = "10.77.0.1"


def can_be_made() -> str:
    """Why there can be none here; empty where there can."""
    try:
        done = subprocess.run(
            ["unshare", "--net", "ip", "link", "add", BRIDGE, "type", "bridge"],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


class Host:
    """One host.

    Attributes:
        address: where the others reach it.
        within: a command that runs another one there.
    """

    def __init__(self, number: int, pid: int) -> None:
        self.address = f"10.77.0.{number + 10}"
        self.within: Sequence[str] = ("nsenter", f"--net=/proc/{pid}/ns/net", "--")


@contextlib.contextmanager
def hosts(count: int) -> Generator[list[Host]]:
    """So many hosts that reach each other and `OWN_ADDRESS`, and nobody else."""
    _ip("link", "set", "lo", "up")
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("address", "add", f"{OWN_ADDRESS}/24", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")
    with contextlib.ExitStack() as stack:
        yield [_host(number, stack) for number in range(count)]


def _host(number: int, stack: contextlib.ExitStack) -> Host:
    # a namespace lasts as long as a process in it
    holder = stack.enter_context(
        subprocess.Popen(["unshare", "--net", "sleep", "1200"], stdin=subprocess.DEVNULL)
    )
    stack.callback(holder.kill)
    until(lambda: _namespace(holder.pid) != _namespace(os.getpid()))
    host, end = Host(number, holder.pid), f"cortex-host{number}"
    _ip("link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
    _ip("link", "set", end, "master", BRIDGE, "up")
    for arguments in (
        ("address", "add", f"{host.address}/24", "dev", "eth0"),
        ("link", "set", "eth0", "up"),
        ("link", "set", "lo", "up"),
    ):
        _ip(*arguments, within=host.within)
    return host


def _namespace(pid: int) -> pathlib.Path:
    return (pathlib.Path("/proc") / str(pid) / "ns" / "net").readlink()


def _ip(*arguments: str, within: Sequence[str] = ()) -> None:
    subprocess.run([*within, "ip", *arguments], check=True, timeout=20)
