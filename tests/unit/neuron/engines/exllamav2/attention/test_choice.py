import pytest

from services.neuron.engines.exllamav2.attention.choice import (
    Backend,
    Facts,
    NoBackendError,
    choose,
    obstacle,
)

EVERYTHING = Facts((2, 8, 3), has_fa3=True, has_triton=True, capability=(9, 0))


@pytest.mark.parametrize(
    ("facts", "backend"),
    [
        (EVERYTHING, Backend.FLASH),
        (Facts((2, 5, 6), has_fa3=True, has_triton=True, capability=(9, 0)), Backend.FA3),
        (Facts(None, has_fa3=True, has_triton=True, capability=(8, 9)), Backend.TRITON),
        (Facts(None, has_fa3=True, has_triton=True, capability=(12, 0)), Backend.TRITON),
        (Facts((2, 8, 3), has_triton=True, capability=(7, 5)), Backend.TORCH),
        (Facts(None, capability=(9, 0)), Backend.TORCH),
        (Facts(has_triton=True), Backend.TORCH),
        (Facts(has_triton=True, triton_interpreted=True), Backend.TRITON),
    ],
)
def test_the_best_backend_that_can_run_is_chosen(facts: Facts, backend: Backend) -> None:
    assert choose("auto", facts) is backend


@pytest.mark.parametrize("backend", Backend)
def test_a_wish_that_can_be_met_is(backend: Backend) -> None:
    assert choose(backend.value, EVERYTHING) is backend


def test_a_wish_that_cannot_be_met_says_why() -> None:
    with pytest.raises(NoBackendError, match=r"=flash: flash-attn 2\.5\.6 is older than 2\.5\.7"):
        choose("flash", Facts((2, 5, 6), capability=(9, 0)))


def test_an_unknown_wish_names_the_known() -> None:
    with pytest.raises(NoBackendError, match="auto, flash, fa3, triton, torch"):
        choose("xformers", EVERYTHING)


def test_every_obstacle_is_a_reason() -> None:
    reasons = {backend: obstacle(backend, Facts()) for backend in Backend}

    assert reasons.pop(Backend.TORCH) is None
    assert all(reasons.values())
