"""Lines of requests: what they tell, and when they leave."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest
from msgspec import UNSET

from services.backplane.logs import LogSettings
from services.gateway.telemetry.request_log import BufferedLog, RequestLine, request_log


def line(event: str = "request.finished", **facts: object) -> RequestLine:
    return RequestLine(
        event=event,
        request_id="req_1",
        dialect="openai_chat",
        model="tiny",
        stream=False,
        status=200,
        elapsed_ms=1.5,
        client_gone=False,
        timestamp=datetime.now(UTC),
        **facts,  # type: ignore[arg-type]
    )


def lines(stream: io.BytesIO) -> list[dict[str, object]]:
    return [json.loads(one) for one in stream.getvalue().splitlines()]


def test_a_line_tells_what_is_known_and_nothing_else() -> None:
    stream = io.BytesIO()
    log = BufferedLog(stream)

    log.write(line(neuron="n1", cached_tokens=0, principal=UNSET))
    log.drain()

    (told,) = lines(stream)
    moment = datetime.fromisoformat(str(told.pop("timestamp")))
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 60
    assert told == {
        "event": "request.finished",
        "request_id": "req_1",
        "dialect": "openai_chat",
        "model": "tiny",
        "stream": False,
        "status": 200,
        "elapsed_ms": 1.5,
        "client_gone": False,
        "neuron": "n1",
        "cached_tokens": 0,
        "service": "gateway",
        "level": "info",
    }


def test_lines_wait_for_the_drain_and_a_failure_takes_them_along() -> None:
    stream = io.BytesIO()
    log = BufferedLog(stream)

    log.write(line())
    assert not lines(stream)
    log.write(line("request.failed", reason="NO_ROOM", detail="Full."))

    assert [told["level"] for told in lines(stream)] == ["info", "warning"]
    log.drain()
    assert len(lines(stream)) == 2


def test_what_waits_is_bounded() -> None:
    stream = io.BytesIO()
    log = BufferedLog(stream)

    for _ in range(1000):
        log.write(line())

    assert len(lines(stream)) > 500


@pytest.mark.parametrize(("level", "told"), [("info", 2), ("warning", 1), ("error", 0)])
def test_the_level_decides_what_is_told(
    level: str, told: int, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    log = request_log(LogSettings(level=level, format="json"))  # type: ignore[arg-type]

    log.write(line())
    log.write(line("request.failed"))
    log.drain()

    assert len(capsysbinary.readouterr().err.splitlines()) == told


def test_people_are_told_the_same_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    request_log(LogSettings(format="console")).write(line(neuron="n1"))

    told = capsys.readouterr()
    assert "request.finished" in told.out + told.err
    assert "n1" in told.out + told.err
    assert "UNSET" not in told.out + told.err
