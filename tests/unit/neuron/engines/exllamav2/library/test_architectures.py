import pytest

from services.neuron.engines.exllamav2.library.architectures import arch_list, covers, folder_part


@pytest.mark.parametrize(
    ("part", "capabilities", "expected"),
    [
        ("90", [(9, 0)], True),
        ("86-90", [(9, 0)], True),  # an image for several
        ("86-90", [(8, 6), (9, 0)], True),
        ("86", [(8, 6), (9, 0)], False),  # mixed cards
        ("80", [(8, 6)], True),  # machine code runs on later minor versions
        ("86", [(8, 0)], False),
        ("80", [(9, 0)], False),
        ("80PTX", [(9, 0), (12, 0)], True),
        ("80PTX", [(7, 5)], False),
        ("90a", [(9, 0)], True),
        ("120", [(12, 0)], True),
        ("100-120", [(12, 1)], True),
        ("Ampere", [(8, 0)], False),  # a name says too little
        ("", [(8, 0)], False),
    ],
)
def test_what_was_built_runs_where_its_machine_code_does(
    part: str, capabilities: list[tuple[int, int]], expected: bool
) -> None:
    assert covers(part, capabilities) is expected


def test_a_folder_is_named_by_what_it_was_built_for() -> None:
    assert folder_part("8.6;9.0+PTX") == folder_part("8.6 9.0+PTX") == "86-90PTX"
    assert arch_list([(9, 0), (8, 6), (9, 0)]) == "8.6;9.0"
