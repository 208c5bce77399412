import pytest

from services.agent.core.model_options import ModelOptions
from services.agent.core.modes import Mode
from services.agent.options import changed, config_options


def test_every_value_that_is_offered_can_be_chosen_and_is_then_the_current_one():
    chosen = ModelOptions()
    offered = config_options(Mode.DEFAULT, "a:b", ["a:b"], chosen)[2:]

    assert ["effort", "temperature", "top_p"] == [each.id for each in offered]
    assert ["default"] * 3 == [each.current_value for each in offered]
    for index, each in enumerate(offered):
        for value in [option.value for option in each.options]:
            chosen = changed(chosen, each.id, value)
            now = config_options(Mode.DEFAULT, "a:b", ["a:b"], chosen)[2 + index]
            assert value == now.current_value
    assert ModelOptions("max", 1.3, 1.0) == chosen


def test_the_default_is_what_nothing_is_sent_for():
    chosen = changed(ModelOptions(effort="high", temperature=0.0, top_p=0.9), "effort", "default")

    assert ModelOptions("", 0.0, 0.9) == chosen
    assert ModelOptions("", None, 0.9) == changed(chosen, "temperature", "default")


@pytest.mark.parametrize(
    ("config_id", "value", "words"),
    [
        ("effort", "heroic", "'heroic' is none of default, none, low, medium, high, max"),
        ("temperature", "9.0", "temperature: '9.0' is none of default, 0.0,"),
        ("mood", "good", "no option mood"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(config_id: str, value: str, words: str):
    with pytest.raises(LookupError, match=words):
        changed(ModelOptions(), config_id, value)
