import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.core.text import clean, clean_json, cut_middle, one_line


@given(st.text(), st.integers(2, 80))
def test_a_title_of_any_script_is_short_and_on_one_line(text: str, limit: int):
    title = one_line(text, limit)

    assert len(title) <= limit
    assert len(title.splitlines()) <= 1
    title.encode()


@given(st.text(alphabet=st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010)))
def test_lone_surrogates_become_encodable(text: str):
    clean(text).encode()


def test_a_pair_that_was_split_is_joined():
    assert "😀" == clean("\ud83d" + "\ude00")


def test_everything_in_json_is_cleaned():
    assert {"\ufffd": ["\ufffd", 1, None]} == clean_json({"\ud800": ["\udc00", 1, None]})


@pytest.mark.parametrize(
    "command", ["echo 'größe' && rm -rf täglich", "日本語" * 50, "a\x1b[31mb\nc"]
)
def test_commands_make_titles(command: str):
    assert one_line(command, 20)


def test_the_middle_is_cut():
    assert "abcdef" == cut_middle("abcdef", 6)
    assert "ab\n[... 6 characters left out ...]\nij" == cut_middle("abcdefghij", 4)
