import asyncio
import gc
import io
import json
import logging

import pytest
import structlog

from services.backplane.logs import LogSettings, configure
from tests.doubles.planted import BODY, assert_crash_tells_nothing, crash


def test_a_line_is_json_with_service_level_and_facts():
    out = io.StringIO()
    configure(LogSettings(format="json"), service="gateway", stream=out)

    structlog.get_logger().info("model.loaded", model="m", path={1, 2})

    line = json.loads(out.getvalue())
    assert ("model.loaded", "info", "gateway", "m") == (
        line["event"],
        line["level"],
        line["service"],
        line["model"],
    )
    assert line["timestamp"].endswith("Z")


def test_lines_below_the_level_are_not_written():
    out = io.StringIO()
    configure(LogSettings(level="warning", format="json"), service="x", stream=out)

    structlog.get_logger().info("quiet")

    assert "" == out.getvalue()


def test_an_exception_is_part_of_the_line():
    out = io.StringIO()
    configure(LogSettings(format="json"), service="x", stream=out)

    try:
        raise ValueError("boom")
    except ValueError:
        structlog.get_logger().exception("rpc.crashed")

    told = json.loads(out.getvalue())["exception"]
    assert told.endswith("in test_an_exception_is_part_of_the_line\nValueError")


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_traceback_names_its_frames_and_no_values(format_):
    out = io.StringIO()
    configure(LogSettings(format=format_), service="x", stream=out)

    def handle(key, prompt):
        headers = {"authorization": key}
        return headers[prompt[:2]]

    try:
        handle("sk-" + "secret" * 2, "secret" * 3)
    except KeyError:
        structlog.get_logger().exception("rpc.crashed")

    assert "KeyError" in out.getvalue()
    assert "handle" in out.getvalue()
    assert "secretsecret" not in out.getvalue()


def test_no_text_of_a_caller_makes_a_line_long():
    out = io.StringIO()
    configure(LogSettings(format="json"), service="x", stream=out)

    structlog.get_logger().info("thing.asked", name="a" * 5_000_000)

    assert len(out.getvalue()) < 5_000


@pytest.mark.parametrize("format_", ["json", "console"])
def test_what_a_library_says_is_a_line_like_all_others(format_):
    out = io.StringIO()
    configure(LogSettings(format=format_), service="x", stream=out)

    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("asyncio").exception("Exception in callback %s", "f")

    assert "library.said" in out.getvalue()
    if format_ == "json":
        line = json.loads(out.getvalue())
        assert ("asyncio", "Exception in callback f", "error", "x") == (
            line["logger"],
            line["detail"],
            line["level"],
            line["service"],
        )
        assert line["exception"].endswith("\nValueError")


def test_a_library_that_quotes_an_exception_is_told_by_its_type():
    out = io.StringIO()
    configure(LogSettings(format="json"), service="x", stream=out)

    logging.getLogger("lib").error("%s: it failed: %s", "task 1", ValueError(BODY))

    assert "task 1: it failed: ValueError" == json.loads(out.getvalue())["detail"]


async def test_what_asyncio_says_of_a_task_quotes_none_of_it():
    out = io.StringIO()
    configure(LogSettings(format="json"), service="x", stream=out)

    task = asyncio.create_task(asyncio.to_thread(crash))
    await asyncio.sleep(0.05)
    del task  # nobody has asked for its end
    gc.collect()

    assert_crash_tells_nothing(out.getvalue())
    assert "Task exception was never retrieved" == json.loads(out.getvalue())["detail"]
