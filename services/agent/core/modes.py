"""What a tool may do in which session mode. Pure: paths come in resolved, a verdict goes out."""

import enum
from dataclasses import dataclass
from pathlib import PurePath

from services.agent.core.self_running import runs_by_itself


class Mode(enum.StrEnum):
    """The session modes, by the ids that editors see; `plan` is the most restrictive."""

    DEFAULT = "default"
    ACCEPT_EDITS = "accept-edits"
    PLAN = "plan"
    BYPASS = "bypassPermissions"


MODE_TITLES: dict[Mode, tuple[str, str]] = {
    Mode.DEFAULT: ("Default", "Reads the project freely; asks before it writes or runs a command."),
    Mode.ACCEPT_EDITS: ("Accept edits", "Writes in the project freely; asks before commands."),
    Mode.PLAN: ("Plan", "Reads the project; writes only below the plan directory; no commands."),
    Mode.BYPASS: ("Bypass permissions", "Never asks."),
}


class Effect(enum.Enum):
    """What a tool does to the world outside the conversation."""

    NOTHING = "nothing"
    READ = "read"
    WRITE = "write"
    EXECUTE = "execute"
    OPERATE = "operate"  # an order to the fleet, which others use too
    FETCH = "fetch"  # a page of the web
    FOREIGN = "foreign"  # an MCP server's tool: only that server knows
    FOREIGN_READ = "foreign-read"  # one that its server declares read-only; a claim, not a proof


class Verdict(enum.Enum):
    """Whether a call may run."""

    ALLOW = "allow"
    ASK = "ask"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and, for a refusal, the sentence that the model reads."""

    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Places:
    """The resolved directories that a decision depends on.

    Attributes:
        roots: the session's working directory and its additional ones.
        plan_directory: where plan mode may write; None when it cannot be used.
    """

    roots: tuple[PurePath, ...]
    plan_directory: PurePath | None


def is_within(path: PurePath, directory: PurePath) -> bool:
    """Says whether a resolved path lies strictly below a resolved directory."""
    return path != directory and path.is_relative_to(directory)


def decide(
    *, mode: Mode, effect: Effect, tool: str, target: PurePath | None, places: Places
) -> Decision:
    """Whether a call may run, has to be asked about, or is refused.

    The first rule that applies:

    1. What has no effect is allowed, and in `Mode.BYPASS` everything is.
    2. Reading is allowed below the project's directories and the plan directory; elsewhere the
       user is asked.
    3. Writing below the plan directory is allowed in every mode.
    4. In `Mode.PLAN` the user is asked before a fetch or a foreign server's read; all else is
       refused.
    5. In `Mode.ACCEPT_EDITS` a plain edit (see `is_plain_edit`) is allowed.
    6. The user is asked.

    Args:
        mode: of the session.
        effect: what the tool does.
        tool: its name, for the words of a refusal.
        target: what would be read or written, with every link and `..` resolved.
        places: the directories that count.
    """
    if effect is Effect.NOTHING or mode is Mode.BYPASS:
        return Decision(Verdict.ALLOW)
    if effect is Effect.READ:
        return Decision(Verdict.ALLOW if _is_readable(target, places) else Verdict.ASK)
    in_plans = _in_plan_directory(effect, target, places)
    if mode is Mode.PLAN:
        return _decide_in_plan(effect, tool, target, places, in_plans=in_plans)
    if in_plans:
        return Decision(Verdict.ALLOW)
    if mode is Mode.ACCEPT_EDITS and effect is Effect.WRITE and target is not None:
        return Decision(Verdict.ALLOW if is_plain_edit(target, places) else Verdict.ASK)
    return Decision(Verdict.ASK)


def is_plain_edit(target: PurePath, places: Places) -> bool:
    """Says whether a file lies in the project and runs only when somebody calls it."""
    roots = [root for root in places.roots if is_within(target, root)]
    return bool(roots) and not any(runs_by_itself(target, root) for root in roots)


def _is_readable(target: PurePath | None, places: Places) -> bool:
    if target is None:
        return False
    plans = () if places.plan_directory is None else (places.plan_directory,)
    return any(target.is_relative_to(each) for each in (*places.roots, *plans))


def _in_plan_directory(effect: Effect, target: PurePath | None, places: Places) -> bool:
    return (
        effect is Effect.WRITE
        and target is not None
        and places.plan_directory is not None
        and is_within(target, places.plan_directory)
    )


def _decide_in_plan(
    effect: Effect, tool: str, target: PurePath | None, places: Places, *, in_plans: bool
) -> Decision:
    if in_plans:
        return Decision(Verdict.ALLOW)
    if effect in {Effect.FOREIGN_READ, Effect.FETCH}:
        return Decision(Verdict.ASK)
    if effect is Effect.WRITE:
        allowed = places.plan_directory or "(no plan directory can be used on this machine)"
        return Decision(
            Verdict.REFUSE,
            f"plan mode: {tool} may not write {target}; the only place to write is below {allowed}",
        )
    return Decision(Verdict.REFUSE, f"plan mode: {tool} is disabled until the mode is changed")
