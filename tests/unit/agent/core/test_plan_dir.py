import os
from pathlib import Path

import pytest

from services.agent.core.modes import is_within
from services.agent.core.plan_dir import PlanDirectory, data_home, fnv1a_32, project_id, resolve


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "811c9dc5"),
        ("a", "e40c292c"),
        ("foobar", "bf9cf968"),
        ("/home/me/proj", "d8c3495e"),
    ],
)
def test_known_hashes(text: str, expected: str):
    assert expected == f"{fnv1a_32(text):08x}"


@pytest.mark.parametrize(
    ("cwd", "basename"),
    [
        ("/home/me/proj", "proj"),
        ("/home/me/my proj.v2", "my_proj_v2"),
        ("/home/me/größe", "gr__e"),
        ("/", "unknown"),
    ],
)
def test_the_name_is_the_sanitised_basename_and_the_hash_of_the_whole(cwd: str, basename: str):
    assert f"{basename}-{fnv1a_32(cwd):08x}" == project_id(cwd)


def test_projects_of_one_name_have_different_directories():
    assert project_id("/a/proj") != project_id("/b/proj")


def test_data_home_prefers_xdg_and_ignores_a_relative_one():
    assert Path("/x/cortex-acp") == data_home({"XDG_DATA_HOME": "/x", "HOME": "/h"})
    assert Path("/h/.local/share/cortex-acp") == data_home({"XDG_DATA_HOME": "x", "HOME": "/h"})
    assert data_home({}) is None


def test_links_and_dots_are_seen_through(tmp_path: Path):
    plans = PlanDirectory(tmp_path, "/proj")
    directory = plans.create()
    assert directory is not None
    (directory / "out").symlink_to("/etc")
    (directory / "loop").symlink_to(directory / "loop")
    (tmp_path / "in").symlink_to(directory)

    assert is_within(resolve(directory / "a/../b.md"), directory)
    assert is_within(resolve(tmp_path / "in" / "b.md"), directory)
    assert not is_within(resolve(directory / ".." / "b.md"), directory)
    assert not is_within(resolve(directory / "out" / "b.md"), directory)
    assert not is_within(resolve(directory / "a/../../b.md"), directory)


def test_a_plan_directory_that_is_a_link_cannot_be_used(tmp_path: Path):
    plans = PlanDirectory(tmp_path / "data", "/proj")
    assert plans.path is not None
    plans.path.parent.mkdir(parents=True)
    plans.path.symlink_to(tmp_path)

    assert plans.resolved() is None
    assert plans.create() is None


def test_a_data_directory_that_is_a_link_can_be_used(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "real")

    directory = PlanDirectory(tmp_path / "data", "/proj").create()

    assert directory == tmp_path / "real" / "plans" / project_id("/proj")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_made_is_none(tmp_path: Path):
    tmp_path.chmod(0o500)

    assert PlanDirectory(tmp_path / "data", "/proj").create() is None


def test_without_a_home_there_is_no_directory():
    assert PlanDirectory(None, "/proj").create() is None
