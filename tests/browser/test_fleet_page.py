"""The fleet in a real browser, while it is at work."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import pytest

expect = pytest.importorskip(
    "playwright.sync_api", reason="no Playwright here: scripts/test-console brings it"
).expect
expect.set_options(timeout=20_000)

from tests.browser.conftest import RunningFleet, Visitor  # noqa: E402
from tests.browser.cuttable import Wire  # noqa: E402

Visit = Callable[..., Visitor]
AXE = pathlib.Path(os.environ.get("AXE", "axe-is-not-here"))
SIZES = {"wide": {"width": 1440, "height": 900}, "phone": {"width": 390, "height": 844}}
PAGES = ["", "requests", "usage", "playground"]


def value(page: Any, name: str) -> Any:
    return page.locator(".summary > *", has_text=name).locator(".value")


def row(page: Any, model: str) -> Any:
    return page.locator(f"tr[data-name='{model}']")


def test_what_is_loaded_and_how_fast_it_goes_is_seen_at_once(visit: Visit) -> None:
    page = visit().open()

    expect(page.get_by_text("live", exact=True)).to_be_visible()
    expect(value(page, "Ready")).to_have_text(re.compile(r"[4-9]"))
    expect(value(page, "Speed")).to_have_text(re.compile(r"^[1-9]\d*tok/s"))
    expect(value(page, "First token")).to_have_text(re.compile(r"\d+ ?m?s"))
    instance = page.locator(".instance[data-model='qwen3-14b']")
    expect(instance).to_contain_text("tok/s")
    cellar = page.locator("[aria-label='Neuron cellar, ready']")
    bar = cellar.get_by_role("img").first
    expect(bar).to_have_attribute("aria-label", re.compile("qwen3-14b 9.0 GiB"))
    expect(cellar.locator(".figures").first).to_contain_text(re.compile(r"\d °C · \d+ W"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_page_fits_and_is_accessible(visit: Visit, size: str, scheme: str) -> None:
    if not AXE.is_file():
        pytest.skip("no axe-core here: scripts/test-console brings it")
    visitor = visit(color_scheme=scheme)
    visitor.page.set_viewport_size(SIZES[size])
    for name in PAGES:
        page = visitor.open(name)
        expect(page.get_by_text("live", exact=True)).to_be_visible()
        expect(page.locator(".skeleton")).to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        page.evaluate(AXE.read_text())
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        told = [(v["id"], [n["html"][:160] for n in v["nodes"][:3]]) for v in found["violations"]]
        assert not told, f"{name}: {told}"


def test_targets_of_a_phone_are_large_enough(visit: Visit) -> None:
    visitor = visit(has_touch=True)
    visitor.page.set_viewport_size(SIZES["phone"])
    page = visitor.open()
    expect(row(page, "qwen3-14b")).to_be_visible()

    small = page.evaluate(
        """[...document.querySelectorAll('button:not(.link), select, nav a')]
        .filter(one => one.offsetParent && one.getBoundingClientRect().height < 44)
        .map(one => one.outerHTML)"""
    )

    assert small == []


def test_a_model_is_loaded_and_unloaded_and_shown_only_when_it_is(
    visit: Visit, fleet: RunningFleet
) -> None:
    page = visit().open()
    fleet.do("hold mistral-small-3.2")

    row(page, "mistral-small-3.2").get_by_role("button", name="Load…").click()
    page.get_by_label("Where").select_option("rack-1")
    page.get_by_role("dialog").get_by_role("button", name="Load", exact=True).click()

    order = page.locator(".of-orders")
    expect(order).to_contain_text("Loads on rack-1")
    expect(row(page, "mistral-small-3.2")).to_contain_text("loading")
    expect(page.locator(".of-waiting")).to_contain_text("mistral-small-3.2")
    fleet.do("release mistral-small-3.2")
    expect(row(page, "mistral-small-3.2")).to_contain_text("ready")
    expect(order).to_contain_text("done")

    row(page, "mistral-small-3.2").get_by_role("button", name="Unload").click()
    expect(row(page, "mistral-small-3.2")).to_contain_text("on disk")


def test_a_load_can_be_given_up(visit: Visit, fleet: RunningFleet) -> None:
    page = visit().open()
    fleet.do("hold mistral-small-3.2")
    row(page, "mistral-small-3.2").get_by_role("button", name="Load…").click()
    page.get_by_role("dialog").get_by_role("button", name="Load", exact=True).click()
    expect(page.locator(".of-orders")).to_contain_text("Loads on")

    page.locator(".of-orders").get_by_role("button", name="Stop").click()

    expect(page.locator(".of-orders")).to_contain_text("given up")
    expect(row(page, "mistral-small-3.2")).to_contain_text("on disk")
    fleet.do("release mistral-small-3.2")


def test_a_busy_model_is_unloaded_only_after_a_question(visit: Visit) -> None:
    page = visit().open()
    expect(page.locator(".instance[data-model='qwen3-14b']")).to_contain_text(
        re.compile(r"[1-8]/8")
    )
    page.get_by_role("button", name="Unload qwen3-14b on cellar").click()

    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("at work on cellar")
    expect(dialog.get_by_role("button", name="Keep")).to_be_focused()
    page.keyboard.press("Enter")

    expect(dialog).to_have_count(0)
    expect(row(page, "qwen3-14b")).to_contain_text("ready")


def test_what_is_refused_is_told_in_the_server_s_words(visit: Visit) -> None:
    page = visit().open()
    row(page, "qwen3-14b").get_by_role("button", name="Unpin").click()

    order = page.locator(".of-orders")
    expect(order).to_contain_text("pinned by the catalogue")
    expect(order).to_contain_text("req_")


def test_a_lost_neuron_wants_attention_and_comes_back(visit: Visit, fleet: RunningFleet) -> None:
    page = visit().open()
    fleet.do("lose attic")

    expect(page.locator(".attention")).to_contain_text("lost")
    expect(value(page, "Attention")).to_have_text("1")
    fleet.do("return attic")
    expect(page.locator(".attention")).to_have_count(0)


def test_an_explanation_names_every_neuron(visit: Visit) -> None:
    page = visit().open()
    row(page, "qwen3-embedding-4b").get_by_role("button", name="Why?").click()

    drawer = page.get_by_role("complementary")
    expect(drawer).to_contain_text("would be loaded on")
    expect(drawer.locator(".candidates li")).to_have_count(4)


def test_the_keyboard_is_enough(visit: Visit) -> None:
    page = visit().open()
    expect(row(page, "qwen3-14b")).to_be_visible()

    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("smollm")
    expect(page.locator("tr[data-row]")).to_have_count(1)
    page.get_by_label("Search").fill("")
    page.keyboard.press("Escape")
    page.locator("[aria-label='Neuron attic, ready']").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("[aria-label='Neuron cellar, ready']")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("complementary", name="cellar")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("complementary")).to_have_count(0)
    row(page, "gpt-oss-20b").focus()
    page.keyboard.press("l")
    expect(page.get_by_role("dialog", name="Load gpt-oss-20b")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(page.get_by_role("heading", name="Requests", exact=True).first).to_be_attached()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()


def test_a_cut_stream_is_told_and_mended_by_itself(visit: Visit, fleet: RunningFleet) -> None:
    wire = Wire(fleet.url)
    try:
        page = visit(url=wire.url).open()
        expect(row(page, "qwen3-14b")).to_be_visible()

        wire.cut()

        expect(page.get_by_role("alert")).to_contain_text("The gateway is not heard")
        expect(page.locator(".live")).to_contain_text("old")
        expect(row(page, "qwen3-14b").get_by_role("button", name="Unload")).to_be_disabled()
        wire.mend()
        expect(page.get_by_text("live", exact=True)).to_be_visible()
        expect(row(page, "qwen3-14b").get_by_role("button", name="Unload")).to_be_enabled()
    finally:
        wire.close()


def test_without_a_key_there_is_a_door_and_nothing_else(visit: Visit) -> None:
    page = visit(key="").open()
    expect(page.get_by_role("heading", name="This console needs a key")).to_be_visible()

    page.get_by_label("API key").fill("editor-key")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text('console = "none"')
    page.get_by_label("API key").fill("view-key")
    page.keyboard.press("Enter")

    unload = row(page, "qwen3-14b").get_by_role("button", name="Unload")
    expect(unload).to_be_disabled()
    expect(unload).to_have_attribute("title", 'This key has console = "view"')


def test_requests_and_usage_follow(visit: Visit) -> None:
    visitor = visit()
    page = visitor.open("requests")
    expect(page.locator("tbody tr").first).to_contain_text(re.compile("end of turn|client left"))
    page.locator("tbody tr").first.get_by_role("button").click()
    expect(page.get_by_role("complementary", name="Request")).to_contain_text("req_")

    page = visitor.open("usage")
    expect(page.locator("tbody tr", has_text="editor")).to_be_visible()
    page.get_by_label("By").select_option("model")
    expect(page.locator("tbody tr", has_text="qwen3-14b")).to_be_visible()


def test_two_hundred_neurons_keep_their_rows(visit: Visit) -> None:
    many = RunningFleet("--many", "200")
    try:
        page = visit(key="", url=many.url).open()
        expect(page.locator(".neuron")).to_have_count(200, timeout=60_000)
        page.evaluate("window.kept = document.querySelectorAll('.neuron')[150]")
        page.evaluate("kept.scrollIntoView()")
        before = page.evaluate("scrollY")
        many.do("lose host-001")

        expect(page.locator(".attention")).to_contain_text("host-001")
        assert page.evaluate("kept === document.querySelectorAll('.neuron')[150]")
        assert page.evaluate("scrollY") >= before
    finally:
        many.end()
