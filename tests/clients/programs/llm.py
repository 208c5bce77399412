"""llm, the command line tool."""

import os

from services.cli.sdk_checks.suite import Suite, Target
from tests.clients.programs.program import Program

target = Target.of(os.environ)
MODELS = "".join(
    f"- model_id: {name}\n  model_name: {name}\n  api_base: {target.url}/v1\n"
    "  supports_tools: true\n  supports_schema: true\n"
    for name in (target.model, target.scripted, "no-such-model")
)
llm = Program(
    os.environ["CORTEX_LLM"],
    environment={"LLM_USER_PATH": "HOME_DIR/llm", "OPENAI_API_KEY": "none"},
    files={
        "llm/extra-openai-models.yaml": MODELS,
        "add.py": 'def add(a: int, b: int) -> str:\n    """Adds."""\n    return str(a + b)\n',
    },
)
suite = Suite("llm", version=llm.version())


@suite.check("stream")
def streamed(target):
    ran = llm.run("-m", target.model, "-o", "max_tokens", "16", "Say hello.")
    assert ran.out.strip(), ran.err


@suite.check("basics")
def not_streamed(target):
    ran = llm.run("-m", target.scripted, "--no-stream", "Say hello.")
    assert ran.out.strip() == "Hello from the scripted neuron.", ran.err


@suite.check("tools")
def round_trip(target):
    order = '@call add {"a": 12, "b": 30}'
    ran = llm.run("-m", target.scripted, "--functions", "HOME_DIR/add.py", order)
    assert ran.out.strip() == "The tool said: 42", ran.out + ran.err


@suite.check("structured output")
def schema(target):
    ran = llm.run("-m", target.model, "--schema", "a int, b int", "Add 1 and 2.")
    assert ran.out.strip().startswith("{"), ran.out + ran.err


@suite.check("errors")
def unknown_model(target):
    ran = llm.run("-m", "no-such-model", "Say hello.")
    assert ran.code
    assert "does not exist" in ran.err, ran.err


@suite.check("cancel")
def interrupting_stops_the_model(target):
    llm.interrupt(target, "-m", target.scripted, "@stall")


if __name__ == "__main__":
    suite.main()
