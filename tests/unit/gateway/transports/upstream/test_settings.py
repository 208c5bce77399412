"""Entries of `[[gateway.upstreams]]`: what is refused, and that keys stay where they are."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from services.backplane import settings as documents
from services.backplane.settings import SettingsError
from services.cli.settings_files.check import problems
from services.cli.settings_files.effective import NONE, in_force
from services.cli.settings_files.sections import Service
from services.gateway.settings import read
from services.gateway.transports.upstream.settings import UpstreamSettings, key_of, tls_of

EXAMPLE = Path(__file__).resolve().parents[5] / "examples/upstreams.toml"


def upstream(**more: Any) -> UpstreamSettings:
    made: dict[str, Any] = {"name": "far", "url": "https://far.example/v1", "models": ("a",)}
    return UpstreamSettings(**(made | more))


def checked(*entries: str) -> tuple[UpstreamSettings, ...]:
    document = documents.Document(
        {"gateway": {"upstreams": [tomllib.loads(one) for one in entries]}}, "f.toml"
    )
    return read(document)[0].upstreams


def test_the_example_is_read():
    hosted, lab = read(documents.load(EXAMPLE, {}))[0].upstreams

    assert {"coder-32b": "coder-large", "chat": "chat-mini"} == hosted.names
    assert {"vast-200b": "vast-200b"} == lab.names
    assert ("fallback", "always") == (hosted.when, lab.when)
    assert (32, 16) == (hosted.streams, lab.streams)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("url = 'ftp://a/v1'", "url: expected"),
        ("url = 'https://ann:secret@a/v1'", "url: expected"),
        ("url = 'https://a/v1?x=secret'", "url: expected"),
        ("url = 'https:///v1'", "url: expected"),
        ("url = 'http://far.example/v1'", "insecure = true"),
        ("models = []", "models: names no model"),
        ("models = {}", "models: names no model"),
        ("name = 'a b'", "name"),
        ("key_file = 'k'\nkey_variable = 'K'", "one will do"),
        ("streams = 0", "streams"),
        ("key = 'secret'", "key"),
    ],
)
def test_what_no_gateway_can_use_is_refused_by_its_key(entry: str, told: str):
    whole = {"name": "'far'", "url": "'https://a/v1'", "models": "['m']"}
    lines = [f"{k} = {v}" for k, v in whole.items() if not entry.startswith(f"{k} =")]

    with pytest.raises(SettingsError, match=r"f.toml: gateway.upstreams\[0\]") as refused:
        checked("\n".join([*lines, entry]))

    assert told in str(refused.value)
    assert "secret" not in str(refused.value)


def test_names_are_unique():
    one = "name = 'far'\nurl = 'https://a/v1'\nmodels = ['m']"

    with pytest.raises(SettingsError, match="'far' comes twice"):
        checked(one, one)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "http://localhost/v1"])
def test_plain_http_is_for_this_machine(url: str):
    (made,) = checked(f"name = 'far'\nurl = '{url}'\nmodels = ['m']")

    assert url == made.url


def test_keys_come_from_files_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "key").write_text("sk-file\n")
    monkeypatch.setenv("FAR_KEY", "sk-variable")

    assert "" == key_of(upstream(), "u")
    assert "sk-file" == key_of(upstream(key_file=str(tmp_path / "key")), "u")
    assert "sk-variable" == key_of(upstream(key_variable="FAR_KEY"), "u")


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"two words", b"two\nlines", b"\xff", "ключ".encode()]
)
def test_what_is_no_key_is_refused_and_not_repeated(tmp_path: Path, content: bytes):
    (tmp_path / "key").write_bytes(content)

    with pytest.raises(SettingsError, match=r"u\.key_file") as refused:
        key_of(upstream(key_file=str(tmp_path / "key")), "u")

    assert "words" not in str(refused.value)


def test_files_that_are_not_there_are_told_by_config_check(tmp_path: Path):
    file = tmp_path / "cortex.toml"
    file.write_text(
        "[[gateway.upstreams]]\nname = 'a'\nurl = 'https://a/v1'\nmodels = ['m']\n"
        f"key_file = '{tmp_path}/none'\n"
    )

    (told,) = problems(documents.load(file, {}), [Service.GATEWAY])

    assert "gateway.upstreams[0].key_file" in told
    with pytest.raises(SettingsError, match=r"u\.ca"):
        tls_of(upstream(ca=str(tmp_path / "none")), "u")
    with pytest.raises(SettingsError, match="NO_SUCH is not set"):
        key_of(upstream(key_variable="NO_SUCH"), "u")


def test_config_show_has_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAR_KEY", "sk-variable")
    file = tmp_path / "cortex.toml"
    file.write_text(
        "[[gateway.upstreams]]\nname = 'a'\nurl = 'https://a/v1'\nmodels = ['m']\n"
        "key_variable = 'FAR_KEY'\n"
    )

    shown = {each.key: each.value for each in in_force(documents.load(file, {}), NONE)}

    assert "FAR_KEY" == shown["key_variable"]
    assert "sk-variable" not in repr(shown)


def test_names_of_models_there():
    by_table = upstream(models={"a": "b", "*": "rest"})

    assert ["b", "rest"] == [by_table.theirs(name) for name in ("a", "c")]
    assert ["a", "c"] == [upstream(models=("a", "*")).theirs(name) for name in ("a", "c")]
    assert ["a", None] == [upstream(models=("a",)).theirs(name) for name in ("a", "c")]
