"""A hundred prompts to a real model of 135 million parameters with a window of 8k."""

from typing import Any

import acp
import acp.schema
import pytest

from tests.system.agent.conftest import Place
from tests.system.agent.editor_double import EditorDouble, reject
from tests.system.agent.scripted_endpoint import ScriptedEndpoint
from tests.system.local_fleet import RunningFleet

PROMPTS = 100
WINDOW = 8192
STORY = "The harbour lay still, and nobody had seen the ferry since the morning. " * 7
CONFIG = """
max_rounds = 2

[[endpoints]]
name = "cortex"
base_url = "{url}/v1"
model = "smollm2-135m"
max_tokens = 32
"""


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_a_small_model_at_8k_takes_a_hundred_prompts(place: Place, real_fleet: RunningFleet):
    (place.project / "story.txt").write_text(STORY * 20)
    path = place.home / "agent.toml"
    path.write_text(CONFIG.format(url=real_fleet.url))
    environment: Any = {
        "CORTEX_ACP_CONFIG": str(path),
        "CORTEX_ACP_BASE_URL": "",
        "CORTEX_ACP_WIRE_API": "",
    }
    asked = [
        "Say in one sentence what happens here. {story}",
        "Read story.txt and tell me its first word. {story}",
        "What did I ask you before? {story}",
        "List the files of this project.",
        "Is this a letter or a poem? {story}",
    ]
    stops: list[str] = []
    inputs: list[int] = []
    async with (
        ScriptedEndpoint() as unused,
        place.agent(unused, EditorDouble(reject), **environment) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        for number in range(PROMPTS):
            story = STORY * (40 if number in {20, 65} else 1)  # two are longer than a quarter of it
            text = asked[number % len(asked)].format(story=f"({number}) {story}")
            answer = await running.connection.prompt(
                session_id=session.session_id, prompt=[acp.text_block(text)]
            )
            stops.append(answer.stop_reason)
            print(number, answer.stop_reason, flush=True)  # noqa: T201 - it takes minutes
        updates = running.editor.updates
        inputs = [u.used for u in updates if isinstance(u, acp.schema.UsageUpdate)]

    compactions = place.events("compaction applied")
    failed = place.events("no summary")
    print(  # noqa: T201 - the figures are what one runs it for
        f"{len(inputs)} requests, at most {max(inputs)} of {WINDOW} tokens;"
        f" {len(compactions)} compactions, {len(failed)} times no summary;"
        f" stops { ({each: stops.count(each) for each in stops}) }"
    )
    assert set(stops) <= {"end_turn", "max_tokens", "max_turn_requests"}
    assert len(stops) == PROMPTS
    assert max(inputs) <= WINDOW
    assert place.record(session.session_id)["marks"]["summary"] is not None
    assert not [line for line in place.log() if line["event"] == "prompt failed"]
