from pathlib import Path

import pytest

from services.agent.tools.files import replace_file


def test_a_planted_link_is_not_written_through(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("safe")
    (tmp_path / "a").symlink_to(outside)
    (tmp_path / "b").symlink_to(outside / "victim")

    with pytest.raises(OSError, match="become a link"):
        replace_file(tmp_path / "a" / "new", b"x")
    replace_file(tmp_path / "b", b"x")

    assert [outside / "victim"] == list(outside.iterdir())
    assert "safe" == (outside / "victim").read_text()
