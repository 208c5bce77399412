from pathlib import Path

from services.agent.tools.list_dir import ListDir
from tests.doubles.tool_context import context


async def test_listing_says_what_each_entry_is(tmp_path: Path):
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("dir")

    outcome = await ListDir().run({}, context(tmp_path))

    assert "d dir\nf file\nl link" == outcome.text
