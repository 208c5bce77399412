"""The page as it is served: where it is, its headers, and by which names."""

from __future__ import annotations

import gzip

import pytest

from services.gateway.console.assets import POLICY
from tests.integration.gateway.fleet import Fleet


async def test_a_browser_is_led_there_and_others_are_told_in_words(fleet: Fleet) -> None:
    browser = await fleet.client.get("/", headers={"accept": "text/html,*/*;q=0.8"})
    other = await fleet.client.get("/")
    looked = await fleet.client.head("/")

    assert (browser.status_code, browser.headers["location"]) == (302, "ui/")
    assert other.text == "Cortex is running"
    assert looked.status_code == 200


async def test_the_page_has_a_slash_at_its_end(fleet: Fleet) -> None:
    bare = await fleet.client.get("/ui")
    page = await fleet.client.get("/ui/")

    assert (bare.status_code, bare.headers["location"]) == (308, "ui/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert '<div id="app">' in page.text


@pytest.mark.parametrize("path", ["/ui/", "/ui/app/main.js", "/ui/style/base.css", "/ui/icon.svg"])
async def test_every_file_has_the_policy(fleet: Fleet, path: str) -> None:
    answer = await fleet.client.get(path)

    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


async def test_files_are_compressed_and_not_sent_twice(fleet: Fleet) -> None:
    first = await fleet.client.get("/ui/app/main.js", headers={"accept-encoding": "gzip"})
    plain = await fleet.client.get("/ui/app/main.js", headers={"accept-encoding": "identity"})
    known = {"if-none-match": first.headers["etag"]}
    again = await fleet.client.get("/ui/app/main.js", headers=known)

    assert first.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert first.content == plain.content
    assert len(gzip.compress(plain.content, 9)) < len(plain.content)
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["nothing.js", "../settings.py", "..%2fsettings.py", "vendor"])
async def test_nothing_else_is_served(fleet: Fleet, path: str) -> None:
    assert (await fleet.client.get(f"/ui/{path}")).status_code == 404


async def test_a_name_that_is_not_the_gateway_s_gets_no_page(fleet: Fleet) -> None:
    answer = await fleet.client.get("/ui/", headers={"host": "evil.example"})

    assert answer.status_code == 403
    assert "gateway.allowed_hosts" in answer.json()["error"]["message"]


async def test_a_link_from_elsewhere_leads_to_the_page(fleet: Fleet) -> None:
    linked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}

    assert (await fleet.client.get("/ui/", headers=linked)).status_code == 200
