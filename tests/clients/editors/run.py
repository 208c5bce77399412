"""Drives real clients of the Agent Client Protocol through a session of `cortex acp` each."""

import asyncio
import pathlib
import shutil
import sys
import tempfile

from tests.clients import environments
from tests.clients.editors.model import Model
from tests.clients.run import run_suite

NODE_SUITE = environments.HERE / "node" / "suite.mjs"


async def main() -> int:
    """Runs the suites; returns 1 where a check failed or a suite did not run to its end."""
    environments.node()
    folder = environments.packages("editors")
    shutil.copy(NODE_SUITE, folder)
    python = environments.python("acp-sdk")
    commands = {
        "acpx": [str(python), "-m", "tests.clients.editors.acpx"],
        "python_sdk": [str(python), "-m", "tests.clients.editors.python_sdk"],
        "js_sdk": ["node", str(folder / "js_sdk.mjs")],
    }
    failed = passed = 0
    for name, command in commands.items():
        print(f"--- {name}", flush=True)
        with tempfile.TemporaryDirectory() as place:
            home = pathlib.Path(place)
            project = home / "project"
            project.mkdir()
            (project / "greeting.txt").write_text("hello world\n")
            async with Model() as model:
                environment = {
                    "HOME": str(home),
                    "XDG_CONFIG_HOME": str(home / "config"),
                    "XDG_DATA_HOME": str(home / "data"),
                    "XDG_STATE_HOME": str(home / "state"),
                    "CORTEX_AGENT": f"{sys.executable} -m services.agent",
                    "CORTEX_ACP_BASE_URL": f"{model.url}/v1",
                    "CORTEX_EDITORS": str(folder),
                    "CORTEX_PROJECT": str(project),
                    "CORTEX_URL": model.url,
                    "CORTEX_MODEL": "scripted",
                }
                client = await asyncio.to_thread(run_suite, name, command, environment)
        failed += sum(bool(check.why) for check in client.checks)
        passed += sum(not check.why for check in client.checks)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
