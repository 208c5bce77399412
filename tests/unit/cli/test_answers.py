"""What is shown of an answer, kept and stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence

import pytest

from services.cli import answers
from services.cli.sse import ChatFailedError, ChatUsage, GatewayClient, Piece


class Told(GatewayClient):
    """Says some pieces; `stop` is Ctrl-C behind them."""

    def __init__(self, *pieces: Piece, stop: bool = False) -> None:
        super().__init__("http://nowhere")
        self._told = pieces
        self._stops = stop
        self.left = False

    def chat(
        self, model: str, messages: Sequence[dict[str, str]], usage: ChatUsage, **options: object
    ) -> Generator[Piece]:
        try:
            yield from self._told
            if self._stops:
                raise KeyboardInterrupt
        finally:
            self.left = True


HELLO = (
    Piece("waiting", "loading on beast, 40 %"),
    Piece("reasoning", "Hm."),
    Piece("text", "Hel"),
    Piece("text", "lo"),
)


def test_reasoning_is_shown_and_is_no_part_of_what_was_said(capsys):
    said = answers.answer(Told(*HELLO), "m", [])

    assert said == "Hello"
    shown = capsys.readouterr().out
    assert "Hm." in shown
    assert shown.index("Hm.") < shown.index("Hello")


def test_what_a_model_writes_does_nothing_to_the_terminal(capsys):
    pieces = (
        Piece("waiting", "\x1b]0;waits\x07"),
        Piece("reasoning", "\x1b[2J"),
        Piece("text", "one\ntwo \x1b"),  # a sequence may come in parts
        Piece("text", "[31mred\r\x9b1A"),
    )

    said = answers.answer(Told(*pieces), "m", [])

    shown = capsys.readouterr().out
    assert "one\ntwo \\x1b[31mred\\r\\x9b1A" in shown
    assert not {"\x1b", "\x07", "\r", "\x9b"} & set(shown)
    assert said == "one\ntwo \x1b[31mred\r\x9b1A"  # the next question quotes it as it was


def test_ctrl_c_leaves_the_gateway_and_keeps_what_was_said():
    told = Told(*HELLO, stop=True)

    with pytest.raises(answers.StoppedError) as stopped:
        answers.answer(told, "m", [])

    assert told.left
    assert stopped.value.text == "Hello"


def test_a_failure_leaves_the_line(capsys):
    class Failing(Told):
        def chat(
            self,
            model: str,
            messages: Sequence[dict[str, str]],
            usage: ChatUsage,
            **options: object,
        ) -> Generator[Piece]:
            yield Piece("text", "Hel")
            raise ChatFailedError("worker lost")

    with contextlib.suppress(ChatFailedError):
        answers.answer(Failing(), "m", [])

    assert capsys.readouterr().out.endswith("Hel\n")


class Listing(GatewayClient):
    """Lists some models."""

    def __init__(self, *listed: dict[str, object]) -> None:
        super().__init__("http://nowhere")
        self._listed = list(listed)

    def models(self) -> list[dict[str, object]]:
        return self._listed


EMBEDS = {"id": "all-minilm", "capabilities": ["embedding"], "loaded": True}
CHATS = {"id": "b", "capabilities": ["chat", "completion"], "loaded": False}
LOADED = {"id": "c", "capabilities": ["chat"], "loaded": True}


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ((EMBEDS, CHATS), "b"),
        ((EMBEDS, CHATS, LOADED), "c"),
        (({"id": "unknown yet"}, EMBEDS), "unknown yet"),
    ],
)
def test_a_model_that_can_chat_is_chosen(listed, expected):
    assert expected == answers.first_model(Listing(*listed))


@pytest.mark.parametrize(
    ("listed", "words"), [((), "knows no model"), ((EMBEDS,), "none of the gateway's 1 models")]
)
def test_where_none_can_chat_that_is_said(listed, words):
    with pytest.raises(ChatFailedError, match=words):
        answers.first_model(Listing(*listed))
