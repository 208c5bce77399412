"""Who is asking."""

from __future__ import annotations

import pytest

from services.backplane.errors import FleetError, Reason
from services.gateway.auth.auth import Auth
from services.gateway.settings import ApiKey, AuthSettings

KEYS = (ApiKey("alice", key="sk-a"), ApiKey("bob", key="sk-b"))


@pytest.mark.parametrize(
    ("settings", "headers", "expected"),
    [
        (AuthSettings(), {}, ""),
        (AuthSettings(), {"authorization": "Bearer whatever"}, ""),
        (AuthSettings(required=False, keys=KEYS), {"x-api-key": "sk-b"}, "bob"),
        (AuthSettings(required=False, keys=KEYS), {"x-api-key": "sk-?"}, ""),
        (AuthSettings(keys=KEYS), {"authorization": "Bearer sk-a"}, "alice"),
        (AuthSettings(keys=KEYS), {"authorization": "Bearer sk-?", "x-api-key": "sk-b"}, "bob"),
        (AuthSettings(keys=KEYS), {"authorization": "Basic sk-a"}, None),
        (AuthSettings(keys=KEYS), {}, None),
        (AuthSettings(required=True), {"x-api-key": "any"}, None),
    ],
)
def test_principal(settings: AuthSettings, headers: dict[str, str], expected: str | None) -> None:
    if expected is not None:
        assert Auth(settings).holder(headers, "192.0.2.1").principal == expected
        return
    with pytest.raises(FleetError) as caught:
        Auth(settings).holder(headers, "192.0.2.1")
    assert caught.value.reason is Reason.UNAUTHENTICATED
    assert "sk-" not in caught.value.message
