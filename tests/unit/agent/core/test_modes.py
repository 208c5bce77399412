from pathlib import PurePath

import pytest

from services.agent.core.modes import Effect, Mode, Places, Verdict, decide

PLANS = PurePath("/data/plans/proj-1")
PLACES = Places((PurePath("/proj"), PurePath("/lib")), PLANS)
ALLOW, ASK, REFUSE = Verdict.ALLOW, Verdict.ASK, Verdict.REFUSE


def verdict(mode: Mode, effect: Effect, target: str | None = None, places: Places = PLACES):
    path = PurePath(target) if target else None
    return decide(mode=mode, effect=effect, tool="t", target=path, places=places).verdict


@pytest.mark.parametrize("mode", Mode)
def test_reading_is_free_in_the_project_and_asked_for_elsewhere(mode: Mode):
    elsewhere = ALLOW if mode is Mode.BYPASS else ASK

    assert ALLOW == verdict(mode, Effect.NOTHING)
    for inside in ("/proj", "/proj/a", "/lib/b/c", f"{PLANS}/01.md"):
        assert ALLOW == verdict(mode, Effect.READ, inside)
    for outside in ("/etc/shadow", "/proc/self/environ", "/project", "/"):
        assert elsewhere == verdict(mode, Effect.READ, outside)


@pytest.mark.parametrize(
    "path",
    [
        ".git/config", ".git", "sub/.git/hooks/pre-commit", ".GIT/config", ".vscode/tasks.json",
        "HEAD", ".devcontainer.json", ".venv/bin/python", "opencode.json", ".Rprofile",
        ".envrc", "sub/.bashrc", ".zshenv", ".github/workflows/ci.yml", ".gitlab-ci.yml",
        "AGENTS.md", "docs/agents.md", ".claude/settings.json", "venv/lib/x.pth",
    ],
)  # fmt: skip
def test_files_that_run_by_themselves_are_asked_about_even_where_edits_are_accepted(path: str):
    assert ASK == verdict(Mode.ACCEPT_EDITS, Effect.WRITE, f"/proj/{path}")


@pytest.mark.parametrize(
    "path", ["a.py", "docs/git/config", "gitconfig", "environment", ".gitignore"]
)
def test_other_files_are_plain_edits(path: str):
    assert ALLOW == verdict(Mode.ACCEPT_EDITS, Effect.WRITE, f"/proj/{path}")


@pytest.mark.parametrize(
    ("mode", "inside", "outside", "in_plans", "command", "foreign"),
    [
        (Mode.DEFAULT, ASK, ASK, ALLOW, ASK, ASK),
        (Mode.ACCEPT_EDITS, ALLOW, ASK, ALLOW, ASK, ASK),
        (Mode.PLAN, REFUSE, REFUSE, ALLOW, REFUSE, REFUSE),
        (Mode.BYPASS, ALLOW, ALLOW, ALLOW, ALLOW, ALLOW),
    ],
)
def test_what_each_mode_allows(mode, inside, outside, in_plans, command, foreign):
    assert inside == verdict(mode, Effect.WRITE, "/proj/a")
    assert inside == verdict(mode, Effect.WRITE, "/lib/a")
    assert outside == verdict(mode, Effect.WRITE, "/etc/passwd")
    assert in_plans == verdict(mode, Effect.WRITE, f"{PLANS}/01.md")
    assert command == verdict(mode, Effect.EXECUTE)
    assert foreign == verdict(mode, Effect.FOREIGN)


@pytest.mark.parametrize(
    "target", [str(PLANS), f"{PLANS}-2/a", "/data/plans/a", "/data/plans/proj-10/a", "/proj/a"]
)
def test_only_what_lies_strictly_below_the_plan_directory_is_in_it(target: str):
    assert REFUSE == verdict(Mode.PLAN, Effect.WRITE, target)


def test_without_a_plan_directory_plan_mode_writes_nowhere():
    nowhere = Places((PurePath("/proj"),), None)

    assert REFUSE == verdict(Mode.PLAN, Effect.WRITE, f"{PLANS}/a", nowhere)


def test_a_refusal_names_the_path_and_the_allowed_directory():
    decision = decide(
        mode=Mode.PLAN,
        effect=Effect.WRITE,
        tool="write_file",
        target=PurePath("/proj/a"),
        places=PLACES,
    )

    assert "/proj/a" in decision.reason
    assert str(PLANS) in decision.reason


@pytest.mark.parametrize("mode", Mode)
def test_the_web_is_asked_for_in_every_mode_that_asks(mode: Mode):
    assert verdict(mode, Effect.FETCH) == (ALLOW if mode is Mode.BYPASS else ASK)


def test_a_server_that_claims_to_only_read_is_asked_about_in_plan_mode():
    assert ASK == verdict(Mode.PLAN, Effect.FOREIGN_READ)
