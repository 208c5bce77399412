"""The agent's log: JSON lines in a file, because editors hide what goes to stderr.

Standard output belongs to the protocol; nothing else may ever be written there.
"""

import logging
import os
from pathlib import Path

import structlog

from services.backplane.logs import EXCEPTIONS, library_handler, name_event
from services.backplane.tracebacks import write_unforeseen

_ROTATE_BYTES = 10 * 1024 * 1024


def configure(path: Path, level: str) -> None:
    """Sends structlog and the standard library's logging to `path`, one JSON object a line.

    A file above 10 MiB is set aside as `<name>.1` first. Where the file cannot be opened,
    lines go to stderr instead: a log must not keep the agent from starting.
    """
    write_unforeseen()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        EXCEPTIONS,
    ]
    handler = library_handler(
        _file_handler(path) or logging.StreamHandler(),
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, name_event],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        ),
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("services.agent").setLevel(level.upper())
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _file_handler(path: Path) -> logging.Handler | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.exists() and path.stat().st_size > _ROTATE_BYTES:
            path.replace(path.with_name(path.name + ".1"))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return logging.StreamHandler(os.fdopen(descriptor, "a", encoding="utf-8"))
    except OSError:
        return None
