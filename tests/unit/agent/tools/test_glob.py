from pathlib import Path

import pytest

from services.agent.tools.glob import Glob, Globbed
from services.agent.tools.grep import Grep
from services.agent.tools.tool import ToolError
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
        ("a*b*c", ["abc", "x/a-b-c", "abbcc"], ["acb", "a/bc"]),
        ("{src/*,docs/**}/a", ["src/x/a", "docs/a", "docs/x/y/a"], ["src/a", "src/x/y/a"]),
        ("**/x/**/*.{p*,md}", ["x/a.py", "q/x/y/z/a.md"], ["x.py", "y/a.py"]),
        ("*a" * 40 + "*b", ["a" * 40 + "b"], ["a" * 250]),
        ("**/a/" * 20 + "b", ["a/" * 30 + "b"], ["a/" * 100 + "c"]),
    ],
)
def test_glob_patterns(pattern: str, matching: list[str], other: list[str]):
    assert all(Globbed(pattern).matches(name) for name in matching)
    assert not any(Globbed(pattern).matches(name) for name in other)


def test_a_pattern_for_too_many_patterns_is_refused():
    with pytest.raises(ToolError, match="narrow"):
        Globbed("{a,b}" * 10)


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
