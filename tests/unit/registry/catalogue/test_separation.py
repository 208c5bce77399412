from __future__ import annotations

from services.registry.catalogue.profile import Profile
from services.registry.catalogue.separation import complete


def test_what_one_model_says_of_another_holds_both_ways():
    made = complete(
        {
            "a": Profile("a", apart_from=("b",), rather_apart_from=("c",)),
            "b": Profile("b"),
            "c": Profile("c"),
        },
        "models.toml",
    )

    assert (made["a"].apart_from, made["b"].apart_from, made["c"].apart_from) == (
        ("b",),
        ("a",),
        (),
    )
    assert made["c"].rather_apart_from == ("a",)


def test_what_is_required_goes_before_what_is_preferred_whoever_says_it():
    made = complete(
        {"a": Profile("a", apart_from=("b",)), "b": Profile("b", rather_apart_from=("a",))},
        "models.toml",
    )

    assert made["b"].apart_from == ("a",)
    assert made["b"].rather_apart_from == made["a"].rather_apart_from == ()


def test_members_of_a_group_know_each_other_and_a_model_without_one_knows_nobody():
    made = complete(
        {
            "a": Profile("a", exclusive_group="big"),
            "b": Profile("b", exclusive_group="big"),
            "c": Profile("c", exclusive_group="other"),
            "d": Profile("d"),
        },
        "models.toml",
    )

    assert {m: p.exclusive_with for m, p in made.items()} == {
        "a": ("b",),
        "b": ("a",),
        "c": (),
        "d": (),
    }
    assert [m for m, p in made.items() if p.has_rivals] == ["a", "b"]
