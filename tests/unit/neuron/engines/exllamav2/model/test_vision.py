import pytest

from services.backplane.errors import FleetError
from services.neuron.engines.exllamav2.model import vision


def test_a_marker_gives_way_to_its_picture() -> None:
    assert vision.replace([1, 8, 9, 2, 8, 9, 3], (8, 9), [[100, 101], [200]]) == [
        1, 100, 101, 2, 200, 3,
    ]  # fmt: skip


@pytest.mark.parametrize("runs", [[], [[1]], [[1], [2], [3]]])
def test_pictures_and_places_must_match(runs: list[list[int]]) -> None:
    with pytest.raises(FleetError, match=f"2 places for images and {len(runs)} images"):
        vision.replace([8, 8], (8,), runs)


def test_the_marker_is_the_models_own() -> None:
    assert vision.marker_ids({"[IMG]": 10, "x": 1}) == (10,)
    assert vision.marker_ids({"<|vision_start|>": 1, "<|image_pad|>": 2, "<|vision_end|>": 3}) == (
        1,
        2,
        3,
    )
    assert vision.marker_ids({}) == ()
