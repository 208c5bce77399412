"""What tests of whole sessions ask: a prompt, and two calls about the scratch project's file."""

import asyncio
from typing import Any

import acp
import acp.schema

from tests.system.agent.scripted_endpoint import Call

READ = Call("read_file", {"path": "greeting.txt"}, "call_read")
EDIT = Call(
    "edit_file",
    {"path": "greeting.txt", "old_text": "world", "new_text": "wörld 🌍"},
    "call_edit",
)


async def prompt(running: Any, session_id: str, text: str = "change the greeting") -> Any:
    """Sends a prompt and returns the answer to it, which comes with the end of the turn."""
    async with asyncio.timeout(60):
        return await running.connection.prompt(session_id=session_id, prompt=[acp.text_block(text)])
