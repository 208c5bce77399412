"""The program `cortex acp`: settings, log, the agent, and its life between stdin and stdout."""

import argparse
import asyncio
import datetime as dt
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import acp
import msgspec
import structlog

from services.agent import log as agent_log
from services.agent.agent import CortexAgent
from services.agent.core.plan_dir import data_home
from services.agent.core.settings import (
    PREFIX,
    AgentSettings,
    config_home,
    load_settings,
    state_home,
)
from services.agent.endpoints.connecting import connect
from services.agent.endpoints.selection import Endpoints
from services.agent.prompt.prompt import BASE
from services.agent.session_service.opening import AgentEnvironment
from services.agent.storage.store import SessionStore
from services.agent.transport import LINE_BYTES, LineTransport
from services.backplane.log_stream import unblock_standard_error
from services.backplane.process.lifecycle import tell_defect
from services.backplane.settings import SettingsError
from services.backplane.timeouts import timeout

log = structlog.get_logger("services.agent")

_CLOSE_SECONDS = 30.0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the agent until the editor closes its input; returns the exit code."""
    parser = argparse.ArgumentParser(prog="cortex acp", description=__doc__)
    parser.add_argument("--config", type=Path, help="settings file (TOML)")
    parser.add_argument("--log-file", type=Path, help="where to log, JSON lines")
    arguments = parser.parse_args(argv)
    unblock_standard_error()
    environment = dict(os.environ)
    try:
        settings = load_settings(environment, arguments.config)
        if arguments.log_file is not None:
            settings = msgspec.structs.replace(settings, log_file=str(arguments.log_file))
        base = _base_prompt(settings)
    except SettingsError as error:
        print(f"cortex acp: {error}", file=sys.stderr)  # noqa: T201 - it is for a person
        return 2
    default_log = state_home(environment) / "acp.log"
    agent_log.configure(Path(settings.log_file or default_log), settings.log_level)
    return asyncio.run(run_stdio(settings, environment=environment, base_prompt=base))


async def run_stdio(
    settings: AgentSettings, *, environment: Mapping[str, str], base_prompt: str = BASE
) -> int:
    """Serves one editor over standard input and output; returns the exit code.

    Ends when the input does, or on SIGTERM or SIGINT; turns in flight are saved first.
    """
    data = data_home(environment) or Path(tempfile.gettempdir()) / f"cortex-acp-{os.getuid()}"
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
    agent = CortexAgent(
        settings=settings,
        surroundings=AgentEnvironment(
            # The agent's own settings and an operator's key are none of a command's business.
            environment={
                key: value
                for key, value in environment.items()
                if not key.startswith(PREFIX) and key != settings.fleet.api_key_env
            },
            data=data_home(environment),
            config=config_home(environment),
            today=lambda: dt.datetime.now().astimezone().date().isoformat(),
        ),
        store=SessionStore(data / "sessions", executor=executor, now=time.time),
        endpoints=Endpoints(settings, connect=connect, clock=time.monotonic),
        base_prompt=base_prompt,
    )
    log.info("agent started", endpoints=[each.name for each in settings.endpoints])
    reader, writer = await acp.stdio_streams(limit=LINE_BYTES)
    serving = asyncio.create_task(
        acp.run_agent(agent, LineTransport(reader, writer), use_unstable_protocol=True)
    )
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(tell_defect)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    # the settings hold as long as the editor's connection
    loop.add_signal_handler(signal.SIGHUP, log.warning, "reload.nothing")
    try:
        await asyncio.wait({serving})
        if not serving.cancelled() and (error := serving.exception()) is not None:
            log.error("connection failed", exc_info=error)
            return 1
    finally:
        async with timeout(_CLOSE_SECONDS):
            await agent.close()
        executor.shutdown(wait=False)
        log.info("agent stopped")
    return 0


def _base_prompt(settings: AgentSettings) -> str:
    if not settings.system_prompt_path:
        return BASE
    path = Path(settings.system_prompt_path).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"system_prompt_path: {path}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
