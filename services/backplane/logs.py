"""Sets structlog up: JSON lines in production, colours on a terminal.

One canonical line per request and per RPC, at its end. Events are constants (`neuron.attached`),
facts are keys. Prompts, outputs and keys are never logged, so exceptions are told by their type and
their frames alone (`tracebacks`).
Writing a line neither blocks nor raises (`log_stream`).
"""

from __future__ import annotations

import logging
import sys
from typing import Final, Literal, TextIO

import msgspec
import structlog

from services.backplane.excerpt import excerpt
from services.backplane.log_stream import unblock_standard_error
from services.backplane.tracebacks import describe, write_unforeseen

# What a line quotes of others' texts; in bytes of UTF-8, for each of its fields.
_MOST_FIELD_BYTES: Final = 4_000
_ENCODER = msgspec.json.Encoder(enc_hook=str)


# A structlog processor: an event's exception as text.
EXCEPTIONS: Final = structlog.processors.ExceptionRenderer(lambda exc_info: describe(exc_info[1]))


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[log]`: what a service writes on standard error.

    Attributes:
        level: least severity that is written.
        format: `json`, `console`, or `auto` (console on a terminal).
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


def configure(settings: LogSettings, *, service: str, stream: TextIO | None = None) -> None:
    """Configures structlog and the standard library's root logger for this process.

    Args:
        settings: level and format.
        service: bound to every line.
        stream: where lines go; standard error by default.
    """
    unblock_standard_error()
    write_unforeseen()
    out = stream or sys.stderr
    console = settings.format == "console" or (settings.format == "auto" and out.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _shorten,
    ]
    last: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=_write_exception)]
        if console
        else [
            EXCEPTIONS,
            structlog.processors.JSONRenderer(serializer=_dump),
        ]
    )
    # what libraries say through `logging` is told in the same form
    handler = library_handler(
        logging.StreamHandler(out),
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, name_event],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        ),
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # looked up at every line where none was given: who embeds us may replace standard error
        logger_factory=lambda *_: structlog.WriteLogger(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(service=service)


def library_handler(handler: logging.Handler, formatter: logging.Formatter) -> logging.Handler:
    """Makes a handler write what libraries log in our form, without the text of exceptions."""
    handler.addFilter(_quote_no_exception)
    handler.setFormatter(formatter)
    return handler


def _quote_no_exception(record: logging.LogRecord) -> bool:
    """A filter of `logging`: where a sentence quotes an exception, its type stands for that.

    What asyncio says of a task or a callback ends before it quotes them, with their arguments.
    """
    if isinstance(record.args, tuple):
        record.args = tuple(
            type(each).__name__ if isinstance(each, BaseException) else each for each in record.args
        )
    if record.name == "asyncio" and record.exc_info:
        record.msg = record.getMessage().partition("\n")[0].partition("(")[0]
        record.args = ()
    return True


def name_event(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """A structlog processor: a library's sentence is a fact of the event `library.said`."""
    del logger, method
    record: logging.LogRecord = event["_record"]
    event["detail"], event["event"] = event["event"], "library.said"
    event["logger"] = record.name
    return event


def _shorten(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """A structlog processor: texts that are too long for a line lose their middle."""
    del logger, method
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = excerpt(value, _MOST_FIELD_BYTES)
    return event


def _write_exception(out: TextIO, info: structlog.typing.ExcInfo) -> None:
    out.write(f"\n{describe(info[1])}")


def _dump(event: object, **_: object) -> str:
    return _ENCODER.encode(event).decode()
