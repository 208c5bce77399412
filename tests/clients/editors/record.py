"""Records docs/recordings/agent.cast and fleet.cast, and a picture of each.

python -m tests.clients.editors.record agent    demo.sh, with a scripted model
python -m tests.clients.editors.record fleet    fleet.sh: `cortex up` with its real one
"""

import asyncio
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

from tests.clients import environments
from tests.clients.editors.model import Model

FOLDER = environments.ROOT / "docs" / "recordings"
HERE = environments.HERE / "editors"


async def agent() -> None:
    """Records a session of the agent under acpx."""
    with tempfile.TemporaryDirectory() as home:
        project = pathlib.Path(home) / "project"
        project.mkdir()
        (project / "greeting.txt").write_text("hello world\n")
        async with Model() as model:
            more = {"HOME": home, "CORTEX_ACP_BASE_URL": f"{model.url}/v1"}
            await _record("agent", HERE / "demo.sh", home, project=project, more=more)


async def fleet() -> None:
    """Records the first minute with a fleet on this machine."""
    with tempfile.TemporaryDirectory() as home:
        await _record("fleet", HERE / "fleet.sh", home, project=pathlib.Path(home), more={})


async def _record(
    name: str, demo: pathlib.Path, home: str, *, project: pathlib.Path, more: dict[str, str]
) -> None:
    environments.node()
    clients = environments.packages("editors") / "node_modules" / ".bin"
    asciinema = environments.python("asciinema").with_name("asciinema")
    FOLDER.mkdir(exist_ok=True)
    programs = f"{clients}{os.pathsep}{pathlib.Path(sys.executable).parent}"
    environment = {
        **os.environ,
        "XDG_CONFIG_HOME": f"{home}/config",
        "XDG_DATA_HOME": f"{home}/data",
        "XDG_STATE_HOME": f"{home}/state",
        "PATH": f"{programs}{os.pathsep}{environments.path()}",
        "TERM": "xterm-256color",
        **more,
    }
    cast = FOLDER / f"{name}.cast"
    record = ["rec", "--overwrite", "--quiet", "--cols", "100", "--rows", "32"]
    limits = ["--idle-time-limit", "2", "--command", f"bash {shlex.quote(str(demo))}"]
    await _run(asciinema, *record, *limits, cast, cwd=project, environment=environment)
    drawn = ["--in", cast, "--out", cast.with_suffix(".svg"), "--window"]
    size = ["--width", "100", "--height", "32"]
    await _run(clients / "svg-term", *drawn, *size, cwd=project, environment=environment)


async def _run(*command: object, cwd: pathlib.Path, environment: dict[str, str]) -> None:
    words = [str(each) for each in command]
    await asyncio.to_thread(subprocess.run, words, cwd=cwd, env=environment, check=True)


if __name__ == "__main__":
    asyncio.run({"agent": agent, "fleet": fleet}[sys.argv[1]]())
