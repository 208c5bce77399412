"""GLM-4: outputs as the models write them."""

import pytest

from tests.unit.neuron.chat.tool_calls.reading import OSLO, check_meaning

CASES = {
    "glm4: two": (
        "glm4",
        '\nget_weather\n{"city": "Oslo"}\nnow\n{}',
        ("", [OSLO, ("call_1", "now", {})]),
    ),
    "glm4: a name in a sentence": ("glm4", "now it is\nlate", ("now it is\nlate", [])),
    "glm4: a name and no object": ("glm4", "now\nit is late", ("now\nit is late", [])),
}


@pytest.mark.parametrize("case", CASES)
def test_an_output_means_what_its_model_meant(case):
    check_meaning(*CASES[case])
