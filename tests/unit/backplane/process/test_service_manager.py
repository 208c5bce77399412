"""What systemd is told, and the socket that it passes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from services.backplane.process.service_manager import notify, take_listener

TAKING = """
import os, socket, sys
from services.backplane.process.service_manager import take_listener
os.environ["LISTEN_PID"] = str(os.getpid())
descriptor = take_listener()
listener = socket.socket(fileno=descriptor)
print(listener.getsockname()[1], os.get_inheritable(descriptor))
"""


def test_the_manager_hears_what_it_is_told(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        notify("READY=1")

        assert b"READY=1" == manager.recv(64)


def test_nobody_is_told_where_there_is_no_manager(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    notify("WATCHDOG=1")


def test_a_manager_that_is_gone_harms_nobody(monkeypatch, tmp_path):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))

    notify("READY=1")


def test_a_passed_socket_is_taken_and_no_child_inherits_it():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        given = listener.fileno()
        taken = subprocess.run(
            ["bash", "-c", f'exec 3<&{given} "$@"', "-", sys.executable, "-c", TAKING],
            pass_fds=[given],
            env={**os.environ, "LISTEN_FDS": "1"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

        assert f"{listener.getsockname()[1]} False\n" == taken.stdout, taken.stderr


def test_a_socket_of_another_process_is_not_taken():
    environment = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1"}

    assert take_listener(environment) is None
    assert not environment


def test_of_several_sockets_nobody_can_say_which_is_meant():
    with pytest.raises(ValueError, match="2 sockets were passed"):
        take_listener({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"})
