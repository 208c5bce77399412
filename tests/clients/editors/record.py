"""Records docs/recordings/agent.cast, and the picture of it: demo.sh, with a scripted model."""

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
DEMO = environments.HERE / "editors" / "demo.sh"


async def main() -> None:
    """Records, and replaces what was recorded before."""
    environments.node()
    clients = environments.packages("editors") / "node_modules" / ".bin"
    asciinema = environments.python("asciinema").with_name("asciinema")
    FOLDER.mkdir(exist_ok=True)
    cast, picture = FOLDER / "agent.cast", FOLDER / "agent.svg"
    with tempfile.TemporaryDirectory() as place:
        home = pathlib.Path(place)
        project = home / "project"
        project.mkdir()
        (project / "greeting.txt").write_text("hello world\n")
        async with Model() as model:
            programs = f"{clients}{os.pathsep}{pathlib.Path(sys.executable).parent}"
            environment = {
                **os.environ,
                "HOME": str(home),
                "XDG_CONFIG_HOME": str(home / "config"),
                "XDG_DATA_HOME": str(home / "data"),
                "XDG_STATE_HOME": str(home / "state"),
                "PATH": f"{programs}{os.pathsep}{environments.path()}",
                "CORTEX_ACP_BASE_URL": f"{model.url}/v1",
                "TERM": "xterm-256color",
            }
            record = ["rec", "--overwrite", "--quiet", "--cols", "100", "--rows", "32"]
            limits = ["--idle-time-limit", "2", "--command", f"bash {shlex.quote(str(DEMO))}"]
            await _run(asciinema, *record, *limits, cast, cwd=project, environment=environment)
        drawn = ["--in", cast, "--out", picture, "--window", "--width", "100", "--height", "32"]
        await _run(clients / "svg-term", *drawn, cwd=project, environment=environment)


async def _run(*command: object, cwd: pathlib.Path, environment: dict[str, str]) -> None:
    words = [str(each) for each in command]
    await asyncio.to_thread(subprocess.run, words, cwd=cwd, env=environment, check=True)


if __name__ == "__main__":
    asyncio.run(main())
