from pathlib import Path

from services.agent.storage.checkpoints import FileCheckpoints


def write(kept: FileCheckpoints, prompt: int, path: Path, text: str) -> None:
    kept.before(prompt, path)
    path.write_text(text)
    kept.after(prompt, path)


def test_a_prompts_writes_are_taken_back_and_others_left_alone(tmp_path: Path):
    kept = FileCheckpoints(tmp_path / "kept")
    old, new, touched = (tmp_path / name for name in ("old", "new", "touched"))
    old.write_bytes(b"\xff before")
    old.chmod(0o755)
    for path in (old, new, touched):
        write(kept, 4, path, "first")
    write(kept, 4, old, "second")
    touched.write_text("the user's own")

    undone = kept.undo(4)

    assert (b"\xff before", 0o755) == (old.read_bytes(), old.stat().st_mode & 0o777)
    assert not new.exists()
    assert "the user's own" == touched.read_text()
    assert ([str(old), str(new)], [str(touched)]) == (undone.restored, undone.left)
    assert [] == kept.undo(4).restored


def test_what_cannot_be_kept_is_not_taken_back(tmp_path: Path):
    kept = FileCheckpoints(tmp_path / "kept")
    (tmp_path / "real").write_text("real")
    link = tmp_path / "link"
    link.symlink_to("real")

    write(kept, 0, link, "written")

    assert [] == kept.undo(0).restored
    assert "written" == (tmp_path / "real").read_text()
    write(FileCheckpoints(None), 0, tmp_path / "real", "again")


def test_only_the_last_fifty_prompts_are_kept(tmp_path: Path):
    kept = FileCheckpoints(tmp_path / "kept")
    for prompt in range(60):
        write(kept, prompt, tmp_path / "file", str(prompt))

    assert 50 == len(list((tmp_path / "kept").iterdir()))
    kept.forget()
    assert not (tmp_path / "kept").exists()


def test_links_of_a_project_lead_no_restored_file_out_of_it(tmp_path: Path):
    kept = FileCheckpoints(tmp_path / "kept")
    project, outside = tmp_path / "project", tmp_path / "outside"
    (project / "src").mkdir(parents=True)
    outside.mkdir()
    mine = tmp_path / ".bashrc"
    mine.write_text("mine")
    names = (project / "a.py", project / "src/b.py")
    for path in names:
        path.write_text("run me")
        write(kept, 0, path, "written")
    (project / ".a.py.undo.tmp").symlink_to(mine)  # any repository may bring one
    (project / "src/b.py").rename(outside / "b.py")
    (project / "src").rmdir()
    (project / "src").symlink_to(outside)

    undone = kept.undo(0)

    assert "mine" == mine.read_text()
    assert "run me" == names[0].read_text()
    assert not names[0].is_symlink()
    assert "written" == (outside / "b.py").read_text()
    assert ([str(names[0])], [str(names[1])]) == (undone.restored, undone.left)


def test_what_somebody_wrote_between_two_writes_of_a_prompt_is_not_lost(tmp_path: Path):
    kept = FileCheckpoints(tmp_path / "kept")
    path = tmp_path / "file"
    path.write_text("before")
    write(kept, 0, path, "first")
    path.write_text("first, and the user's own")
    write(kept, 0, path, "second")

    kept.undo(0)

    assert "first, and the user's own" == path.read_text()
