"""A process that attacks, or that asks for as many valid answers.

On another machine it would take none of the fleet's processors, so here it gives way to everybody.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bench.attacks.bodies import BODIES
from bench.attacks.target import Target
from bench.attacks.valid import VALID
from bench.attacks.wires import WIRES

_BODY_CONNECTIONS = 2
_PATIENCE_SECONDS = 60.0
_NICENESS = 10
NAMES = (*BODIES, *WIRES)


def connections(name: str) -> int:
    """How many connections an attack has."""
    return WIRES[name][1] if name in WIRES else _BODY_CONNECTIONS


def run(target: Target, name: str, seconds: float) -> dict[str, int]:
    """Attacks for so long.

    Returns:
        How often each answer came to the bodies, by status.
    """
    return _in_a_process(_attack, target, name, seconds)


def run_valid(target: Target, name: str, seconds: float) -> dict[str, int]:
    """Asks for as many valid answers at once as an attack does, and reads them."""
    return _in_a_process(_ask_valid, target, name, seconds)


_Work = Callable[[Target, str, float], "dict[str, int]"]


def _in_a_process(work: _Work, target: Target, what: str, seconds: float) -> dict[str, int]:
    # a process, so that its own work does not hold up the bystander's clock
    with multiprocessing.get_context("spawn").Pool(1, _give_way) as pool:
        return pool.apply_async(work, (target, what, seconds)).get(seconds + 2 * _PATIENCE_SECONDS)


def _give_way() -> None:
    os.setsid()
    os.nice(_NICENESS)
    with contextlib.suppress(
        OSError
    ):  # sessions share the machine first, where the kernel has them
        Path("/proc/self/autogroup").write_text(str(_NICENESS))


def _attack(target: Target, name: str, seconds: float) -> dict[str, int]:
    if name in WIRES:
        attack, count = WIRES[name]
        until = time.monotonic() + seconds
        _together([threading.Thread(target=attack, args=(target, until)) for _ in range(count)])
        return {}
    return _post(target, BODIES[name](target), _BODY_CONNECTIONS, seconds)


def _ask_valid(target: Target, name: str, seconds: float) -> dict[str, int]:
    count, asked = VALID.get(name, (connections(name), {"max_tokens": 16}))
    body = json.dumps(target.chat("Hello", **asked)).encode()
    # what has not come by the end is left, as clients do
    return _post(target, [(target.path, body)], count, seconds, patience=seconds)


def _post(
    target: Target,
    bodies: list[tuple[str, bytes]],
    count: int,
    seconds: float,
    *,
    patience: float = _PATIENCE_SECONDS,
) -> dict[str, int]:
    answers: Counter[str] = Counter()
    until = time.monotonic() + seconds

    def ask(number: int) -> None:
        while time.monotonic() < until:
            path, body = bodies[number % len(bodies)]
            answers[_answer(target, path, body, until + patience - seconds)] += 1
            number += 1

    _together([threading.Thread(target=ask, args=(number,)) for number in range(count)])
    return dict(answers)


def _answer(target: Target, path: str, body: bytes, until: float) -> str:
    seconds = max(0.1, until - time.monotonic())
    connection = http.client.HTTPConnection(target.host, target.port, timeout=seconds)
    try:
        connection.request("POST", path, body, target.headers("attacker"))
        response = connection.getresponse()
        while response.read1(1 << 16) and time.monotonic() < until:
            pass
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
