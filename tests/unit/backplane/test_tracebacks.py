import subprocess
import sys

import pytest

from services.backplane.errors import FleetError, Reason
from services.backplane.tracebacks import describe
from tests.doubles.planted import BODY, assert_crash_tells_nothing, crash

PROGRAM = """
import asyncio, gc, threading
from services.backplane.process import lifecycle
from tests.doubles.planted import crash

class Dying:
    __del__ = crash

async def main(_):
    if {how!r} == "main":
        crash()
    if {how!r} == "thread":
        thread = threading.Thread(target=crash)
        thread.start()
        thread.join()
    if {how!r} == "destructor":
        Dying()
    if {how!r} == "task":
        asyncio.ensure_future(asyncio.to_thread(crash))  # which nobody asks for its end
        await asyncio.sleep(0.05)
        gc.collect()
    if {how!r} == "callback":
        asyncio.get_running_loop().call_soon(crash, {body!r})
        await asyncio.sleep(0.05)
    return 0

lifecycle.run(main)
"""


def caught(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is tested
        return error
    raise AssertionError("nothing was raised")


def test_an_exception_is_told_by_types_and_frames_and_not_by_its_words():
    told = describe(caught(crash, BODY))

    assert_crash_tells_nothing(told)
    assert "ValueError\nwhich caused:\n" in told
    assert "planted.py:" in told
    assert "in crash\n" in told
    assert told.endswith("\nRuntimeError")


def test_every_member_of_a_group_is_told():
    group = ExceptionGroup(BODY, [caught(crash), ValueError(BODY)])

    told = describe(group)

    assert_crash_tells_nothing(told)
    assert told.splitlines()[0] == "ExceptionGroup"
    assert told.splitlines()[-1] == "  ValueError"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, BODY, "/x"), "OSError (ENOSPC)"),
        (
            FleetError(Reason.BAD_REQUEST, BODY),
            "services.backplane.errors.FleetError (BAD_REQUEST)",
        ),
        (KeyError(BODY), "KeyError"),
        (UnicodeDecodeError("utf-8", BODY.encode(), 0, 1, BODY), "UnicodeDecodeError"),
    ],
)
def test_what_helps_and_quotes_nobody_stays(error, told):
    assert told == describe(error)


def test_a_recursion_and_a_chain_that_leads_to_itself_are_short():
    def fall():
        fall()

    first, second = caught(fall), ValueError()
    second.__context__, first.__context__ = first, second

    assert len(describe(first).splitlines()) < 80


@pytest.mark.parametrize("how", ["main", "thread", "destructor", "task", "callback"])
def test_what_nobody_catches_is_told_so_too(how):
    program = PROGRAM.format(how=how, body=BODY)

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )

    assert_crash_tells_nothing(done.stdout + done.stderr)
