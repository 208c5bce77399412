"""The gateway's sections."""

from __future__ import annotations

import pathlib

import pytest

from services.backplane import settings as document
from services.backplane.settings import SettingsError
from services.gateway.settings import AuthSettings, GatewaySettings, read


def parse(tmp_path: pathlib.Path, text: str) -> tuple[GatewaySettings, AuthSettings]:
    path = tmp_path / "cortex.toml"
    path.write_text(text)
    return read(document.load(path, {}))


def test_without_a_word_everything_has_its_default(tmp_path: pathlib.Path) -> None:
    gateway, auth = parse(tmp_path, "")

    assert gateway.listen == "127.0.0.1:31313"
    assert gateway.metrics_listen == "127.0.0.1:31314"
    assert gateway.registry == ("127.0.0.1:31315",)
    assert gateway.max_body_bytes == 64 * 1024 * 1024
    assert not auth.keys


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[gateway]\nlisten = 5", "gateway.listen"),
        ('[gateway]\nlissten = "x:1"', "lissten"),
        ("[gateway]\nworkers = 0", "gateway.workers"),
        ('[gateway]\nhttp1_codec = "quick"', "gateway.http1_codec"),
        ("[gateway]\nregistry = []", "gateway.registry"),
        ('[[auth.keys]]\nname = "a"', "auth.keys[0]"),
        ('[[auth.keys]]\nname = "a"\nsha256 = "12"', "auth.keys[0].sha256"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(tmp_path: pathlib.Path, text: str, complaint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(tmp_path, text)

    assert complaint in str(caught.value)
    assert "cortex.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("listen", '"0.0.0.0"'),
        ("listen", '"31313"'),
        ("listen", '""'),
        ("metrics_listen", '"0.0.0.0:70000"'),
    ],
)
def test_an_address_that_is_none_is_named(tmp_path: pathlib.Path, key: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"cortex.toml: gateway.{key}: .* not"):
        parse(tmp_path, f"[gateway]\n{key} = {value}")


def test_a_registry_that_is_no_address_is_named_by_its_place(tmp_path: pathlib.Path) -> None:
    with pytest.raises(SettingsError, match=r"cortex.toml: gateway.registry\[1\]: 'b' is not host"):
        parse(tmp_path, '[gateway]\nregistry = ["a:1", "b"]')


def test_metrics_may_be_served_nowhere(tmp_path: pathlib.Path) -> None:
    settings, _ = parse(tmp_path, '[gateway]\nmetrics_listen = ""')

    assert not settings.metrics_listen


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "https://chat.example", "http://localhost:*", "http://[::1]:3000", "app://-"],
)
def test_an_origin_is_what_browsers_send(tmp_path: pathlib.Path, origin: str) -> None:
    gateway, _ = parse(tmp_path, f'[gateway]\ncors_origins = ["{origin}"]')

    assert gateway.cors_origins == (origin,)


@pytest.mark.parametrize("origin", ["chat.example", "https://chat.example/", "https://a b", ""])
def test_what_no_browser_sends_is_refused(tmp_path: pathlib.Path, origin: str) -> None:
    with pytest.raises(SettingsError, match="cors_origins"):
        parse(tmp_path, f'[gateway]\ncors_origins = ["{origin}"]')


@pytest.mark.parametrize(
    ("rest", "asks"),
    [
        ('[[auth.keys]]\nname = "a"\nkey = "k"', True),
        ("[auth]\nrequired = true", True),
        ("insecure = true", False),
    ],
)
def test_an_address_that_others_reach_is_served_by_keys_or_on_somebodys_word(
    tmp_path: pathlib.Path, rest: str, *, asks: bool
) -> None:
    _, auth = parse(tmp_path, f'[gateway]\nlisten = "0.0.0.0:1"\n{rest}')

    assert auth.asks_for_keys is asks


@pytest.mark.parametrize("rest", ["", '[auth]\nrequired = false\nkeys = [{name = "a", key = "k"}]'])
def test_an_address_that_others_reach_is_not_served_to_everybody(
    tmp_path: pathlib.Path, rest: str
) -> None:
    with pytest.raises(SettingsError, match="nobody who comes in is asked who he is"):
        parse(tmp_path, f'[gateway]\nlisten = "0.0.0.0:1"\n{rest}')


@pytest.mark.parametrize(
    "url",
    [
        "https://ann:secret@login.example/",
        "http://login.example/?secret",
        "secret",
        "https://[secret",
    ],
)
@pytest.mark.parametrize("name", ["issuer", "jwks_uri"])
def test_where_tokens_come_from_is_safe_and_a_password_in_it_is_not_told(
    tmp_path: pathlib.Path, name: str, url: str
) -> None:
    urls = {"issuer": "https://login.example/", name: url}
    lines = "".join(f'{key} = "{value}"\n' for key, value in urls.items())
    text = f'[auth.oidc]\n{lines}audience = "a"\ngroup_claim = "g"\nmapping = {{a = "b"}}\n'

    with pytest.raises(SettingsError) as refused:
        parse(tmp_path, text)

    assert f"auth.oidc.{name}" in str(refused.value)
    assert "without a user" in str(refused.value)
    assert "secret" not in str(refused.value)
