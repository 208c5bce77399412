import asyncio
import os
import signal

import structlog

from services.backplane.process import lifecycle


def hang_up(reload):
    """Runs a service that gets SIGHUP and then ends by itself; returns the exit code."""

    async def main(_):
        with lifecycle.reloading(reload):
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.05)
        return 7

    return lifecycle.run(main)


def test_a_hangup_reloads_and_ends_nothing():
    heard = []

    with structlog.testing.capture_logs() as lines:
        code = hang_up(lambda: heard.append(1))
    os.kill(os.getpid(), signal.SIGHUP)

    assert code == 7
    assert heard == [1]
    assert [line["event"] for line in lines] == ["reload.nothing"]


def test_a_reload_that_crashes_ends_nothing():
    with structlog.testing.capture_logs() as lines:
        assert hang_up(lambda: 1 / 0) == 7

    assert lines[0]["event"] == "reload.crashed"


def test_a_callback_that_crashes_is_logged_without_its_arguments():
    async def main(_):
        asyncio.get_running_loop().call_soon(int, "planted words")
        await asyncio.sleep(0.01)
        return 0

    with structlog.testing.capture_logs() as lines:
        lifecycle.run(main)

    assert lines[0]["event"] == "loop.defect"
    assert "planted" not in lines[0]["detail"]
    assert isinstance(lines[0]["exc_info"], ValueError)
