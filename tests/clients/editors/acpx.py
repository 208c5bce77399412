"""acpx, a client for the command line: one session of `cortex acp`, a command each."""

import json
import os
import pathlib
import subprocess

from services.cli.sdk_checks.suite import Suite

ACPX = pathlib.Path(os.environ["CORTEX_EDITORS"]) / "node_modules/.bin/acpx"
PACKAGE = ACPX.parents[1] / "acpx/package.json"
PROJECT = pathlib.Path(os.environ["CORTEX_PROJECT"])
DENIED = 5  # its exit code where permissions were asked for and none was given
suite = Suite("acpx", version=json.loads(PACKAGE.read_text())["version"])


def acpx(*arguments, policy="--approve-all"):
    """Runs one command, every permission approved unless another policy is named."""
    options = ("--agent", os.environ["CORTEX_AGENT"], "--cwd", PROJECT, policy)
    ran = subprocess.run(
        [ACPX, *options, "--format", "json", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    expected = 0 if policy == "--approve-all" else DENIED
    assert ran.returncode == expected, f"{arguments}: {ran.stdout[-500:]} {ran.stderr[-500:]}"
    return ran.stdout


def prompt(text):
    """Sends a prompt in the session; returns the updates that it brought, and why it stopped."""
    return told(acpx("prompt", text))


def told(output):
    """Returns the updates that a command's output tells of, and why its prompt stopped."""
    messages = [json.loads(each) for each in output.splitlines() if each[:1] == "{"]
    updates = [
        each["params"]["update"] for each in messages if each.get("method") == "session/update"
    ]
    results = [each["result"] for each in messages if isinstance(each.get("result"), dict)]
    return updates, [each["stopReason"] for each in results if "stopReason" in each]


def said(updates):
    chunks = [each for each in updates if each["sessionUpdate"] == "agent_message_chunk"]
    return "".join(each["content"]["text"] for each in chunks)


def of(updates, kind):
    return [each for each in updates if each["sessionUpdate"] == kind]


@suite.check("tools")
def an_edit_is_asked_for_and_done(_):
    acpx("sessions", "new")
    updates, stops = prompt("change the greeting")
    assert stops == ["end_turn"]
    assert (PROJECT / "greeting.txt").read_text() == "hello fleet\n"
    assert said(updates) == "Reading.The greeting is changed."


@suite.check("tools")
def a_plan_is_shown_and_plan_mode_is_left_by_the_dialog(_):
    acpx("set-mode", "plan")
    updates, stops = prompt("plan a farewell")
    assert stops == ["end_turn"]
    plan = of(updates, "plan")[-1]["entries"]
    assert [each["content"] for each in plan] == ["Write farewell.txt"]
    # it takes the first option that allows once: step by step
    assert [each["currentModeId"] for each in of(updates, "current_mode_update")] == ["default"]
    assert (PROJECT / "farewell.txt").read_text() == "bye\n"


@suite.check("tools")
def undo_takes_back_the_last_prompt_and_no_other(_):
    updates, _ = prompt("/undo")
    assert not (PROJECT / "farewell.txt").exists()
    assert (PROJECT / "greeting.txt").read_text() == "hello fleet\n"
    assert "1 prompt taken back" in said(updates)


@suite.check("basics")
def a_session_goes_on_after_compaction(_):
    updates, stops = prompt("/compact")
    assert stops == ["end_turn"]
    assert said(updates)
    updates, stops = prompt("what did we do?")
    assert stops == ["end_turn"]
    assert said(updates) == "We changed the greeting."
    acpx("sessions", "close")


@suite.check("tools")
def a_command_runs_with_its_terminals_and_files_and_without_them(_):
    for offers in ((), ("--no-fs", "--no-terminal")):
        updates, stops = told(acpx(*offers, "exec", "list the files"))
        assert stops == ["end_turn"]
        assert "greeting.txt" in json.dumps(of(updates, "tool_call_update"))


@suite.check("tools")
def a_refused_permission_changes_nothing(_):
    (PROJECT / "greeting.txt").write_text("hello world\n")
    updates, stops = told(acpx("exec", "change the greeting", policy="--deny-all"))
    assert stops == ["end_turn"]
    assert "the user refused this call" in json.dumps(updates)
    assert (PROJECT / "greeting.txt").read_text() == "hello world\n"


if __name__ == "__main__":
    suite.main()
