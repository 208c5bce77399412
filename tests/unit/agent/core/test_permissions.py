from pathlib import PurePath
from typing import Any

import pytest

from services.agent.core.modes import Effect, Places
from services.agent.core.permissions import Action, allows, allows_private, grant, lasting

PLACES = Places((PurePath("/proj"),), None)


def run(command: str, **more: Any) -> Action:
    return Action(Effect.EXECUTE, "bash", {"command": command, **more}, None)


def file(effect: Effect, path: str) -> Action:
    return Action(effect, "t", {"path": path}, PurePath(path))


def page(url: object) -> Action:
    return Action(Effect.FETCH, "web_fetch", {"url": url}, None)


@pytest.mark.parametrize(
    ("rule", "action", "is_covered"),
    [
        ("run git status", run("git status"), True),
        ("run git status", run("git status src -- tests"), True),
        ("run git status", run("git status --short"), False),
        ("run git status --short", run("git status --short src"), True),
        ("run git diff", run("git diff --output=F"), False),
        ("run git diff", run("git diff --outp F"), False),
        ("run git diff", run("git diff -- --output=F"), False),
        ("run git diff --stat", run("git diff --stat --output=F"), False),
        ("run git diff", run("git diff '--ext-diff'"), False),
        ("run git diff -*", run("git diff --stat main"), True),
        ("run git diff -*", run("git diff --stat; rm x"), False),
        ("run git diff -*", run("git push --force"), False),
        ("run -*", run("rm x"), False),
        ("run git fetch", run("git fetch --upload-pack=./x ."), False),
        ("run go test", run("go test -exec ./x a"), False),
        ("run make test", run("make test SHELL=./x"), False),
        ("run git push", run("git push origin +main"), False),
        ("run gcc a.c", run("gcc a.c @options"), False),
        ("run git bisect", run("git bisect run ./x"), False),
        ("run git submodule", run("git submodule foreach ./x"), False),
        ("run git status", run("git status `rm x`"), False),
        ("run git status", run("GIT_PAGER=./x git status"), False),
        ("run git status", run("git\tstatus"), True),
        ("run git status", run("git status\x00--x"), False),
        ("run git status", run("git status | sh"), False),
        ("run git status", run("git statusx"), False),
        ("run git", run("git push"), True),
        ("run git status", run("git status; rm -rf /"), False),
        ("run git status", run("git status && rm x"), False),
        ("run git status", run("git status $(rm x)"), False),
        ("run git status", run("git status\nrm x"), False),
        ("run git status", run("git status > .envrc"), False),
        ("run git status", run("git status", cwd="/elsewhere"), False),
        ("run", run("ls"), False),
        ("run git status", run("git status\u2028rm"), False),
        ("write", file(Effect.WRITE, "/proj/a"), False),
        ("call drain", Action(Effect.OPERATE, "drain", {}, None), False),
        ("run 'oops", run("oops"), False),
        ("write docs", file(Effect.WRITE, "/proj/docs/a.md"), True),
        ("write docs", file(Effect.WRITE, "/proj/docs2/a.md"), False),
        ("write docs", file(Effect.READ, "/proj/docs/a.md"), False),
        ("write .", file(Effect.WRITE, "/proj/a"), True),
        ("write .", file(Effect.WRITE, "/proj/.git/config"), False),
        ("write AGENTS.md", file(Effect.WRITE, "/proj/AGENTS.md"), True),
        ("read /usr/include", file(Effect.READ, "/usr/include/a.h"), True),
        ("read /usr/include", file(Effect.READ, "/usr/lib/a"), False),
        ("call mcp__a__b", Action(Effect.FOREIGN, "mcp__a__b", {}, None), True),
        ("call mcp__a__b", Action(Effect.FOREIGN, "mcp__a__c", {}, None), False),
        ("fetch docs.test", page("https://docs.test/a?b"), True),
        ("fetch docs.test", page("https://Docs.Test:443"), True),
        ("fetch docs.test", page("https://docs.test:8443/"), False),
        ("fetch docs.test", page("https://evil.test/docs.test"), False),
        ("fetch docs.test", page("https://docs.test@evil.test/"), False),
        ("fetch docs.test", page("https://a.docs.test/"), False),
        ("fetch", page(7), False),
        ("call web_fetch", page("https://docs.test/"), False),
        ("fetch-private h:1", page("http://h:1/"), True),
    ],
)
def test_what_a_rule_covers(rule: str, action: Action, is_covered: bool):
    assert is_covered == allows([rule], action, PLACES)


@pytest.mark.parametrize(
    ("action", "rule"),
    [
        (run("git status src"), "run git status"),
        (run("git status --short"), "run git status --short"),
        (run("git diff main --stat"), "run git diff main --stat"),
        (run("git config core.fsmonitor x"), "run git config core.fsmonitor x"),
        (run("bash"), ""),
        (run("/usr/bin/python3.12"), ""),
        (run("make"), "run make"),
        (run("ls -l"), "run ls -l"),
        (run("git -C sub status"), "run git -C sub status"),
        (run("make -j4 test"), "run make -j4 test"),
        (run("npm run build"), "run npm run build"),
        (run("FOO=1 BAR=2 ls"), ""),
        (run("env FOO=1 make"), ""),
        (run("timeout 10 pytest"), ""),
        (run("/usr/bin/sudo ls"), ""),
        (run("uv run pytest"), "run uv run pytest"),
        (run("python3.12 -m pytest"), "run python3.12 -m pytest"),
        (run("python -u -m pytest"), "run python -u -m pytest"),
        (run("bash -x run.sh"), "run bash -x run.sh"),
        (run("rm -rf build"), ""),
        (run("find . -name x"), ""),
        (run("echo 'a\u2028run rm'"), ""),
        (run("echo 'a\x0brun rm'"), ""),
        (run("pytest " + "a" * 200), ""),
        (run("pytest tests/a.py"), "run pytest tests/a.py"),
        (run("FOO=1 make; rm x"), ""),
        (run(""), ""),
        (file(Effect.WRITE, "/proj/docs/a.md"), "write /proj/docs"),
        (file(Effect.WRITE, "/proj/.envrc"), ""),
        (file(Effect.WRITE, "/etc/hosts"), ""),
        (file(Effect.READ, "/usr/include"), "read /usr/include"),
        (file(Effect.READ, "/tmp/a\nrun rm"), ""),
        (Action(Effect.FOREIGN, "mcp__a__b", {}, None), "call mcp__a__b"),
        (page("https://docs.test/a"), "fetch docs.test"),
    ],
)
def test_the_rule_that_is_offered_covers_the_call(action: Action, rule: str):
    assert rule == lasting(action, PLACES)
    assert bool(rule) == (bool(rule) and allows([rule], action, PLACES))


def test_a_private_address_needs_a_rule_of_its_own():
    assert allows_private(["fetch-private h:1"], "http://h:1/x")
    assert not allows_private(["fetch h:1"], "http://h:1/x")
    assert not allows_private(["fetch-private h"], "http://h:1/x")
    assert not allows_private(["fetch-private "], "file:///x")


def test_what_a_grant_of_the_session_covers():
    plain = [grant(file(Effect.WRITE, path), PLACES) for path in ("/proj/a", "/proj/b/c")]

    assert ["write", "write"] == plain
    assert "write /proj/.envrc" == grant(file(Effect.WRITE, "/proj/.envrc"), PLACES)
    assert "write /etc/a" == grant(file(Effect.WRITE, "/etc/a"), PLACES)
    assert "read /etc/a" == grant(file(Effect.READ, "/etc/a"), PLACES)
    assert grant(run("a"), PLACES) != grant(run("a", cwd="/b"), PLACES)
    assert grant(page("https://a.test/x"), PLACES) == grant(page("https://a.test/y"), PLACES)
    assert grant(page("https://a.test/x"), PLACES) != grant(page("https://b.test/x"), PLACES)
