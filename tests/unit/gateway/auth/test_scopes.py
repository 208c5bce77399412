"""Patterns of names."""

import pytest

from services.gateway.auth.scopes import Scopes


@pytest.mark.parametrize(
    ("patterns", "asked", "model", "expected"),
    [
        ([[]], "a", "a", True),
        ([["a"]], "a", "a", True),
        ([["a"]], "ab", "ab", False),
        ([["a*"]], "ab", "ab", True),
        ([["a?"]], "abc", "abc", False),
        ([["qwen"]], "fast", "qwen", True),
        ([["fast"]], "qwen", "qwen", False),
        ([["x", "a*"]], "ab", "ab", True),
        ([["*"], ["b"]], "a", "a", False),
        ([["[ab]"]], "a", "a", False),
        ([["a.c"]], "abc", "abc", False),
        ([["a*"]], "A", "A", False),
        ([["*"]], "a\nb", "a\nb", True),
    ],
)
def test_a_model_is_allowed_by_every_list(patterns, asked, model, expected):
    scopes = Scopes(models=patterns)

    assert expected == scopes.allow_model(asked, model)
    assert expected == scopes.allow_model(asked, model)  # as it was answered before


def test_what_was_asked_for_is_remembered_within_bounds():
    scopes = Scopes(models=[["a*"]])
    for number in range(1000):
        assert not scopes.allow_model(f"b{number}", "b")

    assert len(scopes._answers) <= 64
