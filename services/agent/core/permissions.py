"""Permission rules that last: what a user has allowed in a project for good. Pure.

One rule a line, to be read and edited by people: `run git status`, `write docs`,
`read /usr/include`, `fetch docs.python.org`, `call mcp__weather__forecast`. A path stands for
everything below it. Behind a command's words only plain words are covered: an option may write a
file or run a program (`git diff --output=F`, `go test -exec X`), so may `NAME=VALUE`. Two rules
are never offered, only written by people: `run git log -*` covers any words behind `git log`, and
`fetch-private localhost:8080` permits what is not of the public internet.
"""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from services.agent.core.modes import Effect, Places, is_plain_edit
from services.agent.core.web_site import site

# With one of these a command is more than its first words say.
_SHELL = re.compile(r"[;&|<>`$(){}\n\r\\#*?\[\]~!]")
_WORDS = {
    Effect.READ: "read",
    Effect.WRITE: "write",
    Effect.EXECUTE: "run",
    Effect.FETCH: "fetch",
}
_PRIVATE = "fetch-private"
_OPTION = "-"
_ANY_OPTION = "-*"  # no command that counts has a `*`
LONGEST_RULE = 200  # that is offered; all of it is shown
_ASSIGNMENT = re.compile(r"\w+\+?=")
# Their first words say nothing: they run what follows, or do to any further file what they do.
_NO_PREFIX = frozenset(
    {
        "sudo", "doas", "su", "env", "timeout", "nice", "ionice", "nohup", "setsid", "stdbuf",
        "time", "watch", "strace", "ltrace", "chroot", "unshare", "xargs", "parallel", "command",
        "builtin", "exec", "eval", "source", ".", "ssh", "busybox", "flock", "script",
        "rm", "rmdir", "mv", "cp", "ln", "dd", "tee", "install", "truncate", "shred",
        "chmod", "chown", "chgrp", "rsync", "scp", "curl", "wget", "sed", "find", "fd", "sort",
        "tar", "zip", "unzip", "kill", "pkill", "killall",
        "cat", "head", "tail", "less", "more", "grep", "egrep", "fgrep", "rg", "diff", "od", "xxd",
        "strings", "base64",
    }
)  # fmt: skip
_RUNS_NEXT = frozenset({"run", "exec", "x", "dlx", "run-script", "tool", "compose", "foreach"})
# As second words: what they do is said by the third, be it `git config core.fsmonitor`.
_VAGUE = _RUNS_NEXT | {
    "config", "submodule", "bisect", "remote", "worktree", "stash", "difftool", "mergetool",
    "container", "image", "pkg", "set", "alias", "api", "create", "init",
}  # fmt: skip
# Alone they say nothing: their first argument is the program, or the order.
_SAYS_NOTHING_ALONE = re.compile(
    r"(?:ba|z|k|c|tc|fi|da|a)?sh|python[\d.]*|pypy[\d.]*|node|deno|bun|ruby|perl|php|lua|Rscript|java"
    r"|git|docker|podman|kubectl|npm|npx|pnpm|yarn|uv|uvx|pipx?|cargo|go|gh|aws|helm|systemctl"
)


@dataclass(frozen=True, slots=True)
class Action:
    """What a call would do.

    Attributes:
        target: what it reads or writes, resolved; None for other effects.
    """

    effect: Effect
    tool: str
    arguments: dict[str, Any]
    target: PurePath | None


def allows(rules: Iterable[str], action: Action, places: Places) -> bool:
    """Says whether one of the rules covers a call.

    A command counts only in the project's directory and as plain words; a file that runs by
    itself only where a rule names the very file.
    """
    if action.effect is Effect.OPERATE:
        return False
    verb = _WORDS.get(action.effect, "call")
    if verb == "fetch" and allows_private(rules, _url(action)):
        return True
    split = (each.partition(" ") for each in rules)
    bodies = [body.strip() for word, _, body in split if word == verb and body.strip()]
    if verb == "run":
        return any(_begins(action, body) for body in bodies)
    if verb == "fetch":
        wanted = site(_url(action))
        return bool(wanted) and wanted in bodies
    if action.target is None:
        return action.tool in bodies
    return any(_covers(places, body, action) for body in bodies)


def lasting(action: Action, places: Places) -> str:
    """Returns the rule that would cover a call and its like, empty where there is none to offer.

    One that cannot be shown whole, on one line, is not offered.
    """
    rule = _rule(action, places)
    return rule if rule.isprintable() and len(rule) <= LONGEST_RULE else ""


def _rule(action: Action, places: Places) -> str:
    verb = _WORDS.get(action.effect, "call")
    if verb == "run":
        words = _beginning(_words(action))
        return shlex.join(["run", *words]) if words else ""
    if verb == "fetch":
        return f"fetch {site(_url(action))}"
    if action.effect is Effect.OPERATE:  # others' work depends on it: asked for one by one
        return ""
    if action.target is None:
        return f"call {action.tool}"
    if verb == "read":
        return f"{verb} {action.target}"
    return f"{verb} {action.target.parent}" if is_plain_edit(action.target, places) else ""


def grant(action: Action, places: Places) -> str:
    """Names what "for this session" covers.

    All plain edits in the project, one other file, one path outside the project to read, one
    command, one site, one order to the fleet, or one server's tool.
    """
    target = action.target
    if action.effect is Effect.WRITE and target is not None:
        return "write" if is_plain_edit(target, places) else f"write {target}"
    if action.effect is Effect.READ:
        return f"read {target}"
    if action.effect is Effect.EXECUTE:
        return f"execute {action.arguments.get('command')!r} {action.arguments.get('cwd')!r}"
    if action.effect is Effect.FETCH:
        return f"fetch {site(_url(action))}"
    if action.effect is Effect.OPERATE:
        return f"call {action.tool} {sorted(action.arguments.items())}"
    return f"call {action.tool}"


def allows_private(rules: Iterable[str], url: str) -> bool:
    """Says whether a rule permits a URL's site even where its address is a private one."""
    wanted = site(url)
    return bool(wanted) and any(rule.split() == [_PRIVATE, wanted] for rule in rules)


def _url(action: Action) -> str:
    url = action.arguments.get("url")
    return url if isinstance(url, str) else ""


def _beginning(words: list[str]) -> list[str]:
    """Returns the words by which a command's like may be known, none where there are none.

    Two as a rule; all where the second does not say what is done, or a later one is not plain.
    """
    if not words or words[0].startswith(_OPTION) or _ASSIGNMENT.match(words[0]):
        return []
    name = PurePath(words[0]).name
    if name in _NO_PREFIX or (len(words) == 1 and _SAYS_NOTHING_ALONE.fullmatch(name)):
        return []
    is_vague = any(word.startswith(_OPTION) or word in _VAGUE for word in words[1:2])
    return words[:2] if not is_vague and all(map(_is_plain, words[2:])) else words


def _is_plain(word: str) -> bool:
    """Says whether a word is an operand: no option, no file of options, nothing that runs."""
    if word == "--":
        return True
    return word[:1] not in {"-", "+", "@"} and "=" not in word and word not in _RUNS_NEXT


def _words(action: Action) -> list[str]:
    """Returns the words of a plain command in the project's directory, else none."""
    command = action.arguments.get("command")
    if not isinstance(command, str) or _SHELL.search(command) or action.arguments.get("cwd"):
        return []
    try:
        return shlex.split(command)
    except ValueError:
        return []


def _begins(action: Action, body: str) -> bool:
    try:
        wanted = shlex.split(body)
    except ValueError:
        return False
    is_any = wanted[-1:] == [_ANY_OPTION]
    wanted = wanted[:-1] if is_any else wanted
    words = _words(action)
    is_begun = bool(wanted) and words[: len(wanted)] == wanted
    return is_begun and (is_any or all(map(_is_plain, words[len(wanted) :])))


def _covers(places: Places, body: str, action: Action) -> bool:
    assert action.target is not None
    path = Path(places.roots[0]) / body
    if action.effect is Effect.WRITE and not is_plain_edit(action.target, places):
        return action.target == path
    return action.target.is_relative_to(path)
