"""Claude Code, one-shot: with the real model in slim form, and with tools through the scripted one."""

import json
import os

from services.cli.sdk_checks.suite import Suite, Target
from tests.clients.programs.program import COMMAND, PROOF, Program, program_path

target = Target.of(os.environ)
claude = Program(
    program_path("claude"),
    environment={
        "ANTHROPIC_BASE_URL": target.url,
        "ANTHROPIC_AUTH_TOKEN": "none",
        "CLAUDE_CONFIG_DIR": "HOME_DIR/claude",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "1",
        "DISABLE_AUTOUPDATER": "1",
    },
)
suite = Suite("Claude Code", version=claude.version())
SLIM = ("--bare", "--tools=", "--system-prompt=Terse.")


def ask(model, *arguments, **environment):
    return claude.run(
        "-p", *arguments, ANTHROPIC_MODEL=model, ANTHROPIC_SMALL_FAST_MODEL=model, **environment
    )


def result(ran):
    return next(event for event in ran.events if event.get("type") == "result")


@suite.check("basics")
def one_shot_with_the_real_model(target):
    # it asks for more where the model meets the limit, as one of 135M may at its first try
    for _ in range(3):
        ran = ask(
            target.model,
            *SLIM,
            "--output-format=json",
            "Say hello",
            CLAUDE_CODE_MAX_OUTPUT_TOKENS="96",
        )
        if ran.code == 0:
            break
    assert ran.code == 0, ran.out + ran.err
    assert result(ran)["result"]


@suite.check("basics")
def whole_prompt_and_all_tools(target):
    ran = ask(target.scripted, "--output-format=json", "Say hello")
    assert result(ran)["result"] == "Hello from the scripted neuron."


@suite.check("stream")
def partial_messages(target):
    ran = ask(
        target.scripted,
        *("--bare", "--output-format=stream-json", "--include-partial-messages", "--verbose"),
        "Say hello",
    )
    kinds = [event["event"]["type"] for event in ran.events if event["type"] == "stream_event"]
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert kinds.count("content_block_delta") > 1


@suite.check("tools")
def round_trip(target):
    order = f"@call Bash {json.dumps({'command': COMMAND, 'description': 'Adds'})}"
    ran = ask(target.scripted, "--bare", "--allowed-tools=Bash", "--output-format=json", order)
    assert result(ran)["result"] == f"The tool said: {PROOF}", ran.out
    assert result(ran)["num_turns"] == 2


@suite.check("structured output")
def json_schema(target):
    schema = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    ran = ask(
        target.scripted,
        "--output-format=json",
        f"--json-schema={json.dumps(schema)}",
        '@call StructuredOutput {"title": "Hi"}',
    )
    assert result(ran)["structured_output"] == {"title": "Hi"}, ran.out


@suite.check("errors")
def prompt_beyond_the_window(target):
    ran = ask(target.model, "Say hello")
    assert ran.code
    assert "Prompt is too long" in ran.out, ran.out
    assert "limit 8192" in ran.out, ran.out


@suite.check("errors")
def unknown_model(target):
    ran = ask("no-such-model", "--bare", "Say hello")
    assert "There's an issue with the selected model" in ran.out, ran.out


@suite.check("errors")
def worker_lost_in_mid_stream(target):
    ran = ask(target.scripted, "--bare", "@break")
    assert ran.code
    assert "The engine stumbled." in ran.out, ran.out


@suite.check("cancel")
def interrupting_stops_the_model(target):
    claude.interrupt(target, "-p", "--bare", "@stall", ANTHROPIC_MODEL=target.scripted)


if __name__ == "__main__":
    suite.main()
