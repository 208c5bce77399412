import io

import pytest

from services.backplane.errors import FleetError, Reason
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


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_the_formats_that_are_said_are_read(kind: str) -> None:
    image = pytest.importorskip("PIL.Image")
    data = io.BytesIO()
    image.new("RGB", (3, 2)).save(data, kind)

    assert vision.opened(data.getvalue()).size == (3, 2)


@pytest.mark.parametrize("kind", ["EPS", "BMP", "TIFF", "PPM"])
def test_no_other_format_reaches_its_decoder(kind: str) -> None:
    image = pytest.importorskip("PIL.Image")
    data = io.BytesIO()
    image.new("RGB", (3, 2)).save(data, kind)

    with pytest.raises(FleetError) as refused:
        vision.opened(data.getvalue())

    assert refused.value.reason is Reason.BAD_REQUEST
    assert refused.value.field == "images"


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0", b"RIFF0000WEBP"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    pytest.importorskip("PIL.Image")

    with pytest.raises(FleetError):
        vision.opened(data)


def test_a_picture_is_measured_before_it_is_decoded() -> None:
    image = pytest.importorskip("PIL.Image")
    data = io.BytesIO()
    image.new("1", (10_000, 6_000)).save(data, "PNG")

    with pytest.raises(FleetError, match="pixels"):
        vision.opened(data.getvalue())
