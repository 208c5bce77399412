from pathlib import Path

from services.agent.storage.permission_file import PermissionFile


def test_only_a_line_end_ends_a_rule(tmp_path: Path):
    file = PermissionFile(tmp_path / "rules", "/proj")

    file.add("run echo a\u2028run rm\x0brun ls\x85run mv")
    file.add("run git status")

    assert ["run echo a\u2028run rm\x0brun ls\x85run mv", "run git status"] == file.rules()


def test_a_byte_order_mark_hides_no_rule(tmp_path: Path):
    path = tmp_path / "a.rules"
    path.write_bytes(b"\xef\xbb\xbfrun git status\r\nwrite docs\r\n")

    assert ["run git status", "write docs"] == PermissionFile(path, "/proj").rules()
