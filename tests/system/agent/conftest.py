"""A scratch project, and agents as processes of their own in front of a scripted endpoint."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import acp
import acp.schema
import pytest

from tests.contract.acp.messages import Messages
from tests.system.agent.editor_double import EditorDouble
from tests.system.agent.scripted_endpoint import ScriptedEndpoint

ROOT = Path(__file__).resolve().parents[3]
WIRES = {"openai-chat": "/v1", "openai-responses": "/v1", "anthropic-messages": ""}


@dataclass
class Running:
    """A connected agent process."""

    connection: Any
    process: asyncio.subprocess.Process
    editor: EditorDouble
    initialized: acp.InitializeResponse
    messages: Messages


@dataclass
class Place:
    """Where an agent works: the project, the home, and what it logged."""

    project: Path
    home: Path

    def log(self) -> list[dict[str, Any]]:
        path = self.home / "state/cortex-acp/acp.log"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def events(self, *names: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"] in names]

    def record(self, session_id: str) -> dict[str, Any]:
        path = self.home / f"data/cortex-acp/sessions/{session_id}.json"
        return dict(json.loads(path.read_text()))

    @asynccontextmanager
    async def agent(
        self,
        endpoint: ScriptedEndpoint,
        editor: EditorDouble,
        *,
        wire: str = "openai-chat",
        files: bool = False,
        terminals: bool = False,
        **environment: str,
    ) -> AsyncIterator[Running]:
        env = {
            "HOME": str(self.home),
            "XDG_DATA_HOME": str(self.home / "data"),
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "PYTHONPATH": str(ROOT),
            "CORTEX_ACP_BASE_URL": endpoint.url + WIRES[wire],
            "CORTEX_ACP_WIRE_API": wire,
            **environment,
        }
        async with acp.spawn_agent_process(
            editor,
            sys.executable,
            "-m",
            "services.agent",
            env=env,
            cwd=self.project,
            transport_kwargs={"limit": 2**24, "stderr": None, "shutdown_timeout": 20},
            use_unstable_protocol=True,
        ) as (connection, process):
            messages = Messages()
            connection._conn.add_observer(messages.observe)
            capabilities = acp.schema.ClientCapabilities(
                fs=acp.schema.FileSystemCapabilities(read_text_file=files, write_text_file=files),
                terminal=terminals,
            )
            initialized = await connection.initialize(1, capabilities)
            yield Running(connection, process, editor, initialized, messages)
        assert [] == messages.problems


@pytest.fixture
def place(tmp_path: Path) -> Place:
    project = tmp_path / "project"
    project.mkdir()
    (project / "greeting.txt").write_text("hello world\n")
    return Place(project, tmp_path)
