"""The playground in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

expect = pytest.importorskip(
    "playwright.sync_api", reason="no Playwright here: scripts/test-console brings it"
).expect
expect.set_options(timeout=20_000)

from tests.browser.conftest import Visitor  # noqa: E402

Visit = Callable[..., Visitor]


def opened(visit: Visit, model: str = "qwen3-14b") -> Any:
    page = visit().open("playground")
    page.locator("select.model").first.select_option(model)
    return page


def say(page: Any, words: str) -> None:
    page.get_by_label("Message").fill(words)
    page.keyboard.press("Enter")


def test_an_answer_streams_and_its_reasoning_is_folded(visit: Visit) -> None:
    page = opened(visit)
    say(page, "Please think first.")

    expect(page.locator(".markdown strong")).to_have_text("what a fleet is")
    expect(page.locator(".measures")).to_contain_text(re.compile(r"first token .* tok/s.*prompt"))
    reasoning = page.locator("details.reasoning")
    expect(reasoning).not_to_have_attribute("open", "")
    expect(reasoning).to_contain_text("Thought for")


def test_one_prompt_goes_to_two_models_and_each_can_be_stopped(visit: Visit) -> None:
    page = opened(visit)
    page.get_by_role("button", name="Compare with a second model").click()
    page.locator("select.model").nth(1).select_option("smollm2-135m")
    say(page, "A long story, please.")

    panes = page.locator(".pane")
    expect(panes).to_have_count(2)
    expect(panes.nth(1).locator(".markdown")).to_contain_text("fleet")
    panes.nth(1).get_by_role("button", name="Stop").click()
    expect(panes.nth(1).locator(".measures")).to_contain_text("stopped")
    expect(panes.nth(0).locator(".measures")).to_contain_text("answer", timeout=40_000)
    expect(panes.nth(0).locator(".measures")).not_to_contain_text("stopped")


def test_a_tool_s_result_is_typed(visit: Visit) -> None:
    page = opened(visit)
    page.get_by_role("button", name="Example").nth(1).click()
    say(page, "What is the weather?")

    expect(page.locator(".call")).to_contain_text('"city": "Prague"')
    page.get_by_label("Its result").fill("sunny")
    page.get_by_role("button", name="Send the result").click()

    expect(page.locator(".turn.user").last).to_contain_text("sunny")
    expect(page.locator(".markdown")).to_contain_text("fleet")


def test_json_is_told_apart_and_a_bad_schema_is_not_sent(visit: Visit) -> None:
    page = opened(visit)
    page.get_by_label("JSON schema of the answer").fill("{not json")
    page.get_by_label("Message").fill("json please")
    expect(page.locator(".composer .wrong")).to_contain_text("The schema is no JSON")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_disabled()

    page.get_by_label("JSON schema of the answer").fill("")
    page.get_by_label("Message").press("Enter")

    expect(page.locator("pre.json")).to_contain_text('"people": 1384732')


def test_hostile_markdown_does_nothing(visit: Visit) -> None:
    visitor = visit()
    page = visitor.open("playground")
    page.locator("select.model").first.select_option("qwen3-14b")
    say(page, "hostile")
    expect(page.locator(".measures")).to_be_visible()

    tags = page.evaluate(
        "[...new Set([...document.querySelectorAll('.markdown *')].map(one => one.tagName))]"
    )

    assert not {"SCRIPT", "STYLE", "IFRAME", "FORM", "INPUT", "SVG", "IMG"} & set(tags)
    assert page.evaluate("window.hacked") is None
    assert page.locator(".markdown [style], .markdown [onerror]").count() == 0
    assert page.locator(".markdown a[href^='javascript']").count() == 0
    expect(page.locator(".markdown")).to_contain_text("[picture: leak]")
    # the browser tells of each thing that the policy kept from happening while it was parsed
    visitor.errors[:] = [one for one in visitor.errors if "Content Security Policy" not in one]


def test_a_picture_is_sent_to_a_model_that_sees(visit: Visit) -> None:
    page = opened(visit, "gemma-3-27b-it")
    dot = bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
        "1f15c4890000000d49444154789c63f8cfc0f01f00050001ff56c72f0d0000000049454e44ae426082"
    )
    picture = {"name": "dot.png", "mimeType": "image/png", "buffer": dot}
    page.locator("input[type=file]").set_input_files(picture)
    expect(page.locator(".pictures img")).to_have_count(1)
    say(page, "What is this?")

    expect(page.locator(".turn.user img")).to_have_count(1)
    expect(page.locator(".markdown")).to_contain_text("fleet")
    page.locator("select.model").select_option("qwen3-14b")
    expect(page.locator("input[type=file]")).to_have_count(0)


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
def test_the_same_request_is_code_without_the_key(visit: Visit, language: str) -> None:
    page = opened(visit)
    page.get_by_label("Message").fill("It's me")
    page.get_by_role("button", name="As code").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=language, exact=True).click()
    dialog.get_by_role("button", name="Copy").click()

    copied = page.evaluate("navigator.clipboard.readText()")
    assert "CORTEX_API_KEY" in copied
    assert "ops-key" not in copied
    assert "me" in copied
    if language == "Python":
        compile(copied, "copied", "exec")
