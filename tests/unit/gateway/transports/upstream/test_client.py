"""What the environment may say of the way to an upstream."""

import pytest

from services.backplane.settings import SettingsError
from services.gateway.transports.upstream.client import new_client
from services.gateway.transports.upstream.settings import UpstreamSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://me:secret@proxy:1080"),
        ("HTTPS_PROXY", "ftp://me:secret@proxy"),
        ("HTTPS_PROXY", "http://me:secret@[::1"),
        ("SSL_CERT_FILE", "/secret/none.pem"),
    ],
)
def test_what_cannot_be_used_is_a_mistake_of_the_settings(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, value)
    there = UpstreamSettings(name="far", url="https://far.example/v1", models=("a",))
    here = UpstreamSettings(name="near", url="http://127.0.0.1:1/v1", models=("a",))

    with pytest.raises(SettingsError, match=r"gateway\.upstreams\[0\]: .*PROXY") as told:
        new_client(there, None, "gateway.upstreams[0]")

    assert "secret" not in str(told.value)
    if "PROXY" in name:
        new_client(here, None, "gateway.upstreams[1]")
