from pathlib import Path

import pytest

from services.agent.tools.glob import Glob, compiled
from services.agent.tools.grep import Grep
from tests.doubles.tool_context import context


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*.py", ["a.py", "x/y/a.py"], ["a.pyc"]),
        ("src/*.py", ["src/a.py"], ["src/x/a.py", "a.py"]),
        ("src/**/*.py", ["src/a.py", "src/x/y/a.py"], ["a.py"]),
        ("**", ["a", "x/y"], []),
        ("a.{ts,tsx}", ["a.ts", "q/a.tsx"], ["a.tsxx"]),
        ("a?.[x]", ["ab.[x]"], ["ab.x"]),
    ],
)
def test_glob_patterns(pattern: str, matching: list[str], other: list[str]):
    assert all(compiled(pattern).fullmatch(name) for name in matching)
    assert not any(compiled(pattern).fullmatch(name) for name in other)


async def test_globbing_and_searching_skip_what_nobody_wants(tmp_path: Path):
    for name in ("src/a.py", "node_modules/b.py", ".git/c.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("needle here\n")

    found = await Glob().run({"pattern": "**/*.py"}, context(tmp_path))
    lines = await Grep().run({"pattern": "NEEDLE", "ignore_case": True}, context(tmp_path))
    nothing = await Grep().run({"pattern": "absent"}, context(tmp_path))
    broken = await Grep().run({"pattern": "("}, context(tmp_path))

    assert "src/a.py" == found.text
    assert "src/a.py:1:needle here" == lines.text
    assert "[nothing matches]" == nothing.text
    assert "(" in broken.text or broken.is_error
