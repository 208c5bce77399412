"""A process that attacks, or that asks for as many valid answers."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable

from bench.attacks.bodies import BODIES
from bench.attacks.target import Target
from bench.attacks.wires import WIRES

_BODY_CONNECTIONS = 2
_PATIENCE_SECONDS = 60.0
NAMES = (*BODIES, *WIRES)


def connections(name: str) -> int:
    """How many connections an attack has."""
    return WIRES[name][1] if name in WIRES else _BODY_CONNECTIONS


def run(target: Target, name: str, seconds: float) -> dict[str, int]:
    """Attacks for so long; an empty name asks for valid answers on one connection.

    Returns:
        How often each answer came to the bodies, by status.
    """
    return _in_a_process(_attack, target, name, seconds)


def run_valid(target: Target, count: int, seconds: float) -> dict[str, int]:
    """Asks for short answers on so many connections."""
    return _in_a_process(_ask_valid, target, str(count), seconds)


_Work = Callable[[Target, str, float], "dict[str, int]"]


def _in_a_process(work: _Work, target: Target, what: str, seconds: float) -> dict[str, int]:
    # a process, so that its own work does not hold up the bystander's clock
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply_async(work, (target, what, seconds)).get(seconds + 2 * _PATIENCE_SECONDS)


def _attack(target: Target, name: str, seconds: float) -> dict[str, int]:
    if name in WIRES:
        attack, count = WIRES[name]
        until = time.monotonic() + seconds
        _together([threading.Thread(target=attack, args=(target, until)) for _ in range(count)])
        return {}
    return _post(target, BODIES[name](target), _BODY_CONNECTIONS, seconds)


def _ask_valid(target: Target, count: str, seconds: float) -> dict[str, int]:
    body = json.dumps(target.chat("Hello", max_tokens=16)).encode()
    return _post(target, [(target.path, body)], int(count), seconds)


def _post(
    target: Target, bodies: list[tuple[str, bytes]], count: int, seconds: float
) -> dict[str, int]:
    answers: Counter[str] = Counter()
    until = time.monotonic() + seconds

    def ask(number: int) -> None:
        while time.monotonic() < until:
            path, body = bodies[number % len(bodies)]
            answers[_answer(target, path, body)] += 1
            number += 1

    _together([threading.Thread(target=ask, args=(number,)) for number in range(count)])
    return dict(answers)


def _answer(target: Target, path: str, body: bytes) -> str:
    connection = http.client.HTTPConnection(target.host, target.port, timeout=_PATIENCE_SECONDS)
    try:
        connection.request("POST", path, body, target.headers("attacker"))
        response = connection.getresponse()
        response.read()
        return str(response.status)
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


def _together(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.daemon = True
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE_SECONDS)
