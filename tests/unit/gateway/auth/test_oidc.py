"""Which tokens of an issuer are believed, and which are not."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator

import jwt
import msgspec
import pytest

from services.backplane.errors import FleetError, Reason
from services.gateway.auth.oidc import Issuer
from services.gateway.settings import OidcSettings
from tests.doubles.identity_provider import AUDIENCE, IdentityProvider, identity_provider


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with identity_provider() as one:
        yield one


@pytest.fixture
def settings(provider: IdentityProvider) -> OidcSettings:
    return OidcSettings(
        issuer=provider.url, audience=AUDIENCE, mapping={"admins": "ops", "staff": "team"}
    )


@pytest.fixture
def now() -> list[float]:
    """Seconds of the monotonic clock, which a test moves on."""
    return [1000.0]


@pytest.fixture
def issuer(settings: OidcSettings, now: list[float]) -> Issuer:
    return Issuer(settings, lambda: now[0])


async def refused(issuer: Issuer, token: str) -> FleetError:
    with pytest.raises(FleetError) as caught:
        await issuer.read(token)
    assert token not in caught.value.message
    return caught.value


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


async def test_a_token_says_who_its_holder_is_and_in_which_group(provider, issuer):
    read = await issuer.read(provider.token())

    assert ("oidc:ann", "team") == (read.principal, read.group)
    assert abs(read.ends_at - time.time() - 300) < 5


async def test_of_several_groups_the_first_of_the_settings_counts(provider, issuer):
    read = await issuer.read(provider.token(groups=["staff", "other", "admins"]))

    assert "ops" == read.group


async def test_a_group_may_be_one_text_or_lie_deeper(provider, settings):
    by_text = await Issuer(settings).read(provider.token(groups="staff"))
    deeper = msgspec.structs.replace(settings, group_claim="realm_access.roles")
    by_path = await Issuer(deeper).read(provider.token(realm_access={"roles": ["staff"]}))

    assert "team" == by_text.group == by_path.group


async def test_a_curve_signs_as_well(provider, issuer):
    provider.add_key("two", curve=True)

    assert await issuer.read(provider.token(key_id="two", algorithm="ES256"))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1},
        {"exp": None},
        {"nbf": 1e10},  # the name of a test must not tell the time: xdist compares them
        {"aud": "somebody else"},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\nb"},
        {"exp": 10**400},
        {"exp": "never"},
    ],
    ids=str,
)
async def test_a_token_that_is_not_for_us_or_not_now_is_refused(provider, issuer, claims):
    assert Reason.UNAUTHENTICATED is (await refused(issuer, provider.token(**claims))).reason


@pytest.mark.parametrize("groups", [None, [], "", ["others"], 5, {"staff": 1}])
async def test_a_holder_of_no_group_is_refused(provider, issuer, groups):
    error = await refused(issuer, provider.token(groups=groups))

    assert Reason.FORBIDDEN is error.reason


async def test_no_algorithm_and_no_other_kind_of_one_is_believed(provider, issuer):
    claims = provider.claims()
    unsigned = f"{encoded({'alg': 'none', 'kid': 'one'})}.{encoded(claims)}."
    # HMAC with what everybody can read as its secret
    signing = f"{encoded({'alg': 'HS256', 'kid': 'one', 'typ': 'JWT'})}.{encoded(claims)}"
    hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = hmac.sign(signing.encode(), provider.public_pem())
    confused = f"{signing}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    weaker = provider.token(algorithm="RS384")

    for token in (unsigned, confused, weaker):
        assert "algorithm" in (await refused(issuer, token)).message


async def test_a_changed_token_is_refused(provider, issuer):
    head, _, signature = provider.token().split(".")
    payload = encoded(provider.claims(groups=["admins"]))

    assert "signature" in (await refused(issuer, f"{head}.{payload}.{signature}")).message


@pytest.mark.parametrize("token", ["eyJ.x.y", "eyJhbGciOiJSUzI1NiJ9..", "a.b.c", "", "x" * 20_000])
async def test_what_is_no_token_is_refused(issuer, token):
    with pytest.raises(FleetError) as caught:
        await issuer.read(token)
    assert Reason.UNAUTHENTICATED is caught.value.reason


async def test_a_new_signing_key_is_found_and_names_made_up_cost_one_look(provider, issuer, now):
    await issuer.read(provider.token())
    provider.add_key("two")
    token = provider.token(key_id="two")
    assert "publish" in (await refused(issuer, token)).message  # it has looked just now
    now[0] += 11

    assert await issuer.read(token)
    looks = len(provider.asked)
    provider.add_key("made-up")
    provider.published.remove("made-up")
    for _ in range(20):
        await refused(issuer, provider.token(key_id="made-up"))
    now[0] += 11
    for _ in range(20):
        await refused(issuer, provider.token(key_id="made-up"))

    assert looks + 2 == len(provider.asked)


async def test_a_signing_key_that_was_taken_back_is_believed_ten_minutes_more(
    provider, issuer, now
):
    provider.add_key("two")
    token = provider.token()
    await issuer.read(token)
    provider.published.remove("one")
    now[0] += 590
    assert await issuer.read(token)
    now[0] += 20

    await refused(issuer, token)


async def test_while_the_provider_is_away_its_keys_stay(provider, issuer, now):
    provider.is_away = True
    assert Reason.REGISTRY_UNAVAILABLE is (await refused(issuer, provider.token())).reason
    provider.is_away = False
    now[0] += 11
    await issuer.read(provider.token())
    provider.is_away = True
    now[0] += 700

    assert await issuer.read(provider.token())


async def test_a_discovery_of_another_issuer_is_not_believed(provider, settings):
    other = msgspec.structs.replace(settings, issuer=provider.url + "/")

    assert Reason.REGISTRY_UNAVAILABLE is (await refused(Issuer(other), provider.token())).reason


async def test_keys_may_be_where_the_settings_say(provider, settings):
    told = msgspec.structs.replace(settings, jwks_uri=f"{provider.url}/keys")

    assert await Issuer(told).read(provider.token())
    assert ["/keys"] == provider.asked


async def test_keys_are_not_asked_for_where_a_user_stands_in_the_url(provider, settings):
    place = provider.url.replace("://", "://ann:secret@")
    told = msgspec.structs.replace(settings, jwks_uri=f"{place}/keys")

    error = await refused(Issuer(told), provider.token())

    assert Reason.REGISTRY_UNAVAILABLE is error.reason
    assert "secret" not in str(error)
    assert not provider.asked


@pytest.mark.parametrize("key_id", [5, ["one"], {}])
async def test_published_keys_that_are_none_keep_nobody_out(provider, issuer, key_id):
    known = provider.private_jwk()
    del known["d"]
    provider.also = [{**known, "kid": key_id}, None, {"kty": "RSA", "kid": "odd", "n": "AA"}]

    assert await issuer.read(provider.token())


async def test_a_published_private_key_is_not_believed(provider, settings):
    provider.published.clear()
    provider.add_key("two")
    provider.also = [provider.private_jwk()]

    error = await refused(Issuer(settings), provider.token())

    assert Reason.UNAUTHENTICATED is error.reason
