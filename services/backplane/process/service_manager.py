"""Talks to the service manager that started this process: systemd, or whoever speaks like it.

Sources: sd_notify(3), sd_listen_fds(3), systemd.service(5).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping
from typing import Final

_FIRST_PASSED_DESCRIPTOR: Final = 3


def notify(state: str) -> None:
    """Tells the service manager something; does nothing where there is none.

    Args:
        state: lines of `KEY=value`, such as `READY=1`.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.setblocking(False)
        told.sendto(state.encode(), address)


def take_listener(environment: MutableMapping[str, str] = os.environ) -> int | None:
    """Takes the listening socket that the service manager passed to this process.

    The variables are removed, so that no child takes it for its own.

    Args:
        environment: of the process.

    Returns: its file descriptor; None where none was passed.

    Raises:
        ValueError: more than one was passed, so that nobody can say which is meant.
    """
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit() or count == "0":
        return None
    if count != "1":
        raise ValueError(f"{count} sockets were passed (LISTEN_FDS); one is taken")
    os.set_inheritable(_FIRST_PASSED_DESCRIPTOR, False)
    return _FIRST_PASSED_DESCRIPTOR
