import io
import json
import logging

import pytest
import structlog

from services.backplane.logs import LogSettings, configure


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

    assert "boom" == json.loads(out.getvalue())["exception"][0]["exc_value"]


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
        assert "boom" == line["exception"][0]["exc_value"]
