"""Codex, one-shot: with the real model in slim form, and with tools through the scripted one."""

import json
import os

from services.cli.sdk_checks.suite import Suite, Target
from tests.clients.programs.program import COMMAND, PROOF, Program, program_path

target = Target.of(os.environ)
CONFIG = f"""
model_provider = "local"
check_for_update_on_startup = false
web_search = "disabled"
[model_providers.local]
name = "local"
base_url = "{target.url}/v1"
wire_api = "responses"
env_key = "LOCAL_KEY"
request_max_retries = 0
stream_max_retries = 0
"""
SLIM = f"""
model_instructions_file = "HOME_DIR/codex/instructions.md"
include_permissions_instructions = false
include_environment_context = false
{CONFIG}
[skills]
include_instructions = false
"""
ENVIRONMENT = {
    "CODEX_HOME": "HOME_DIR/codex",
    "LOCAL_KEY": "none",
    "CODEX_OSS_BASE_URL": f"{target.url}/v1",
}
codex = Program(program_path("codex"), environment=ENVIRONMENT, files={"codex/config.toml": CONFIG})
slim = Program(
    program_path("codex"),
    environment=ENVIRONMENT,
    files={"codex/config.toml": SLIM, "codex/instructions.md": "Be brief."},
)
suite = Suite("Codex", version=codex.version())
EXEC = ("exec", "--json", "--skip-git-repo-check")
FEWER = [
    word
    for name in ("multi_agent", "goals", "plugins", "apps", "view_image")
    for word in ("--disable", name)
]
NONE = ["--disable", "shell_tool", "--disable", "unified_exec"]


def messages(ran):
    items = [event["item"] for event in ran.events if event["type"] == "item.completed"]
    return [item["text"] for item in items if item["type"] == "agent_message"]


def failure(ran):
    return next(event for event in ran.events if event["type"] == "turn.failed")["error"]["message"]


@suite.check("basics")
def one_shot_with_the_real_model(target):
    ran = slim.run(*EXEC, "-s", "read-only", *FEWER, *NONE, "-m", target.model, "Say hello")
    assert messages(ran), ran.out + ran.err
    assert ran.events[-1]["type"] == "turn.completed"


@suite.check("basics")
def whole_prompt_and_all_tools(target):
    ran = codex.run(*EXEC, "-s", "read-only", "-m", target.scripted, "Say hello")
    assert messages(ran) == ["Hello from the scripted neuron."], ran.out


@suite.check("basics")
def as_ollama_and_as_lmstudio(target):
    for provider in ("ollama", "lmstudio"):
        oss = ("--oss", "--local-provider", provider, "-m", target.scripted)
        ran = slim.run(*EXEC, "-s", "read-only", *oss, "Say hello")
        assert messages(ran) == ["Hello from the scripted neuron."], (provider, ran.out)


@suite.check("stream")
def reasoning(target):
    ran = codex.run(*EXEC, "-s", "read-only", "-m", target.scripted, "@think Hm.")
    assert messages(ran) == ["Hello from the scripted neuron."], ran.out


@suite.check("tools")
def round_trip(target):
    order = f"@call exec_command {json.dumps({'cmd': COMMAND})}"
    ran = slim.run(
        *EXEC, "--dangerously-bypass-approvals-and-sandbox", "-m", target.scripted, order
    )
    items = [event["item"] for event in ran.events if event["type"] == "item.completed"]
    commands = [item for item in items if item["type"] == "command_execution"]
    assert [f"{PROOF}\n"] == [item["aggregated_output"] for item in commands], ran.out
    assert PROOF in messages(ran)[-1]


@suite.check("structured output")
def output_schema(target):
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    program = Program(
        program_path("codex"),
        environment=ENVIRONMENT,
        files={
            "codex/config.toml": SLIM,
            "codex/instructions.md": "Be brief.",
            "schema.json": json.dumps(schema),
        },
    )
    ran = program.run(
        *EXEC, "-s", "read-only", *FEWER, *NONE, "-m", "toolless",
        "--output-schema", "HOME_DIR/schema.json", "Say 1.",
    )  # fmt: skip
    assert set(json.loads(messages(ran)[-1])) == {"a"}, ran.out


@suite.check("errors")
def prompt_beyond_the_window(target):
    ran = codex.run(*EXEC, "-s", "read-only", "-m", target.model, "Say hello")
    assert "ran out of room in the model's context window" in failure(ran)


@suite.check("errors")
def unknown_model(target):
    ran = codex.run(*EXEC, "-s", "read-only", "-m", "no-such-model", "Say hello")
    assert "no-such-model" in failure(ran)


@suite.check("errors")
def worker_lost_in_mid_stream(target):
    ran = codex.run(*EXEC, "-s", "read-only", "-m", target.scripted, "@break")
    assert "The engine stumbled." in failure(ran)


@suite.check("cancel")
def interrupting_stops_the_model(target):
    codex.interrupt(target, *EXEC, "-s", "read-only", "-m", target.scripted, "@stall")


if __name__ == "__main__":
    suite.main()
