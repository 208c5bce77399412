import os
from pathlib import Path
from typing import Any

import pytest

from services.agent.prompt.project_commands import as_available, invoked, project_commands

REVIEW = "---\ndescription: Look at a change\nargument-hint: <file>\n---\nReview $1 for $ARGUMENTS."


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    for path, text in {
        ".agents/commands/review.md": REVIEW,
        ".claude/commands/review.md": "not this one",
        ".claude/commands/git/log.md": "# Tell what happened",
        ".claude/skills/prove/SKILL.md": "Prove it.",
        ".claude/commands/empty.md": "",
    }.items():
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text)
    (tmp_path / "secret").write_text("secret")
    (project / ".agents/commands/leak.md").symlink_to(tmp_path / "secret")
    return project


def test_commands_and_skills_are_found_and_offered(project: Path):
    offered = as_available(project_commands(project))

    assert [
        ("review", "Look at a change", "<file>"),
        ("git:log", "Tell what happened", "arguments"),
        ("prove", "Prove it.", "arguments"),
    ] == [(each.name, each.description, each.input.root.hint) for each in offered if each.input]


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("/review a.py style", "Review a.py for a.py style."),
        ("/review 'a b' x", "Review a b for 'a b' x."),
        ("/review", "Review  for ."),
        ("/prove it all", "Prove it.\n\nit all"),
        ("/git:log", "# Tell what happened"),
        ("/leak", None),
        ("/usr/bin is a path", None),
        ("say /review", None),
    ],
)
def test_a_command_becomes_what_its_file_says(project: Path, prompt: str, asked: str | None):
    assert asked == invoked(prompt, project_commands(project))


def test_a_link_in_the_place_of_commands_is_not_walked_out_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    project, outside = tmp_path / "project", tmp_path / "outside"
    (project / ".claude").mkdir(parents=True)
    outside.mkdir()
    (project / ".claude/commands").symlink_to(outside)
    looked_at: list[str] = []
    scandir = os.scandir

    def watched(path: Any) -> Any:
        looked_at.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", watched)

    assert {} == project_commands(project)
    assert not [each for each in looked_at if each.startswith(str(project / ".claude/commands"))]


def test_front_matter_cannot_be_written_to_take_long(project: Path):
    spaces = " " * 32_000
    (project / ".agents/commands/slow.md").write_text(f"---\ndescription: a{spaces}b\n---\nSay it")

    assert "a" == project_commands(project)["slow"].description[0]


def test_front_matter_behind_a_byte_order_mark_is_front_matter(tmp_path: Path):
    folder = tmp_path / ".agents/commands"
    folder.mkdir(parents=True)
    (folder / "review.md").write_bytes(
        b"\xef\xbb\xbf---\r\ndescription: Looks\r\n---\r\nLook at it.\r\n"
    )

    command = project_commands(tmp_path)["review"]

    assert ("Looks", "Look at it.") == (command.description, command.text)
