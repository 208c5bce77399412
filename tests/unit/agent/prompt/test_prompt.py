import os
from pathlib import Path

import acp
import acp.schema
import pytest

from services.agent.core.history import ImagePart, TextPart
from services.agent.core.modes import Mode
from services.agent.core.workspace import Workspace
from services.agent.endpoints.endpoint import ToolSpec
from services.agent.prompt.prompt import BASE, PromptFacts, system_prompt
from services.agent.prompt.prompt_input import user_parts
from services.agent.prompt.rules import RulesFile, read_rules

PLANS = Path("/data/plans/p")


def prompt(mode: Mode, plans: Path | None = PLANS, tools: tuple[ToolSpec, ...] = ()) -> str:
    return system_prompt(
        base=BASE,
        surroundings=PromptFacts(Path("/proj"), [Path("/lib")], "Linux", "2026-01-01"),
        rules=[RulesFile(Path("/proj/AGENTS.md"), "be kind")],
        mode=mode,
        plan_directory=plans,
        text_tools=tools,
    )


def test_facts_and_rules_are_in_it():
    text = prompt(Mode.DEFAULT)

    for fact in ("/proj", "/lib", "2026-01-01", "/proj/AGENTS.md", "be kind"):
        assert fact in text
    assert str(PLANS) not in text


def test_plan_mode_ends_with_its_rules_and_three_options():
    text = prompt(Mode.PLAN)

    rules = text[text.index("# Plan mode") :]
    assert str(PLANS) in rules
    assert "There is no bash" in rules
    assert "call exit_plan_mode" in rules
    assert ["1.", "2.", "3."] == [line[:2] for line in rules.splitlines()[-3:]]
    assert "and wait" in rules


def test_without_a_plan_directory_plan_mode_says_so():
    assert "cannot be used" in prompt(Mode.PLAN, None)


def test_text_tools_come_before_the_mode():
    text = prompt(Mode.PLAN, tools=(ToolSpec("bash", "Runs", {}),))

    assert text.index("<tools>") < text.index("# Plan mode")


def test_rules_are_read_from_the_user_and_down_to_the_directory(tmp_path: Path):
    user, repo = tmp_path / "user", tmp_path / "repo"
    below = repo / "a" / "b"
    below.mkdir(parents=True)
    user.mkdir()
    (repo / ".git").mkdir()
    (tmp_path / "AGENTS.md").write_text("not this one")
    for directory in (user, repo, below):
        (directory / "AGENTS.md").write_text(directory.name)
    (repo / "a" / "AGENTS.md").mkdir()

    assert ["user", "repo", "b"] == [each.text for each in read_rules(below, user)]
    (repo / ".git").rmdir()
    assert ["user", "b"] == [each.text for each in read_rules(below, user)]


def test_rules_are_regular_files_of_the_repository_and_bounded(tmp_path: Path):
    repo, user = tmp_path / "repo", tmp_path / "user"
    names = ("leaves", "pipe", "device", "stays", "long")
    for name in names:
        (repo / name).mkdir(parents=True)
    (repo / ".git").mkdir()
    (tmp_path / "secret").write_text("secret")
    (repo / "CLAUDE.md").write_text("shared")
    (repo / "leaves/AGENTS.md").symlink_to(tmp_path / "secret")
    os.mkfifo(repo / "pipe/AGENTS.md")
    (repo / "device/AGENTS.md").symlink_to("/dev/zero")
    (repo / "stays/AGENTS.md").symlink_to("../CLAUDE.md")
    (repo / "long/AGENTS.md").write_text("x" * 40_000)

    read = {name: "".join(each.text for each in read_rules(repo / name, user)) for name in names}

    assert {**dict.fromkeys(names, ""), "stays": "shared", "long": "x" * 32_768} == read


def test_blocks_are_flattened_in_order():
    blob = acp.schema.BlobResourceContents(blob="Yg==", uri="file:///b", mime_type="image/png")
    parts = user_parts(
        [
            acp.text_block("a\ud800"),
            acp.resource_link_block("n", "file:///x"),
            acp.image_block("aQ==", "image/jpeg"),
            acp.resource_block(blob),
            acp.audio_block("aQ==", "audio/wav"),
        ]
    )

    assert (
        TextPart("a\ufffd[n](/x)"),
        ImagePart("aQ==", "image/jpeg"),
        ImagePart("Yg==", "image/png"),
        TextPart("[audio was attached, which this agent cannot hear]"),
    ) == parts


@pytest.mark.parametrize(
    ("uri", "link", "tag"),
    [
        ("file:///a%20b/%C3%A9.py", "[n](/a b/é.py)", '<file path="/a b/é.py">'),
        (
            "file:///x.py#L10:20",
            "[n](/x.py) (lines 10-20)",
            '<file path="/x.py" part="lines 10-20">',
        ),
        ("file:///x.py#L7-L7", "[n](/x.py) (line 7)", '<file path="/x.py" part="line 7">'),
        (
            "file://localhost/x.py?symbol=a%3Cb#L1:2",
            "[n](/x.py) (symbol a<b, lines 1-2)",
            '<file path="/x.py" part="symbol a<b, lines 1-2">',
        ),
        ("file:///100%/c#1?.md", "[n](/100%/c#1?.md)", '<file path="/100%/c#1?.md">'),
        ("https://a.b/c%20d#L1", "[n](https://a.b/c%20d#L1)", '<file path="https://a.b/c%20d#L1">'),
    ],
)
def test_links_name_a_path_that_tools_read_and_the_part_in_words(uri: str, link: str, tag: str):
    resource = acp.schema.TextResourceContents(uri=uri, text="t")

    parts = user_parts([acp.resource_link_block("n", uri), acp.resource_block(resource)])

    assert (TextPart(f"{link}\n{tag}\nt\n</file>\n"),) == parts


def test_paths():
    workspace = Workspace("/proj", [], environment={"HOME": "/home/me"})

    assert Path("/proj/a") == workspace.absolute("a")
    assert Path("/home/me") == workspace.absolute("~")
    assert Path("/home/me/a") == workspace.absolute("~/a")
    assert Path("/home/me/a") == workspace.absolute("$HOME/a")
    assert Path("/proj/~you/$PATH") == workspace.absolute("~you/$PATH")
    assert "a/b" == workspace.shown("/proj/a/b")
