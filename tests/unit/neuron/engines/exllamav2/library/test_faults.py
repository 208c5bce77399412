import pytest

from services.neuron.engine_api.model import EnginePoisoned
from services.neuron.engines.exllamav2.batch.fault_history import MOST_REBUILDS, FaultHistory
from services.neuron.engines.exllamav2.library.faults import Fault, classify, one_line


class OutOfMemoryError(RuntimeError):
    """Stands in for torch's, which is known by its name."""


class AcceleratorError(RuntimeError):
    """Likewise."""


class OutOfStepError(Exception):
    """Likewise: `parallel.leader` imports torch."""


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (AssertionError("shapes"), Fault.OTHER),
        (ValueError("CUDA error: quoted by a user"), Fault.OTHER),
        (RuntimeError("shape mismatch on device cuda:0"), Fault.OTHER),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate"), Fault.OUT_OF_MEMORY),
        (RuntimeError("Insufficient VRAM for model and cache"), Fault.OUT_OF_MEMORY),
        (AcceleratorError("anything"), Fault.DEVICE),
        (RuntimeError("CUDA error: device-side assert triggered"), Fault.DEVICE),
        (RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED when calling"), Fault.DEVICE),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access"), Fault.DEVICE),
        (caused(ValueError("wrapped"), AcceleratorError("x")), Fault.DEVICE),
        (caused(KeyError("wrapped"), OutOfMemoryError("x")), Fault.OUT_OF_MEMORY),
        (EnginePoisoned("Rank 1: it is gone."), Fault.DEVICE),
        # The other ranks are in the middle of the pass, whatever it was.
        (caused(OutOfStepError("a pass failed"), OutOfMemoryError("x")), Fault.DEVICE),
    ],
)
def test_an_error_is_told_by_its_type_and_its_causes(error: Exception, fault: Fault) -> None:
    assert classify(error) is fault


def raise_while_another_is_handled() -> None:
    try:
        raise AcceleratorError("first")
    except AcceleratorError:
        raise KeyError("second") from None


def test_an_error_raised_while_another_is_handled_counts_too() -> None:
    with pytest.raises(KeyError) as caught:
        raise_while_another_is_handled()

    assert classify(caught.value) is Fault.DEVICE


def test_a_circle_of_causes_ends() -> None:
    one, two = ValueError("1"), ValueError("2")
    one.__cause__, two.__cause__ = two, one

    assert classify(one) is Fault.OTHER


def test_an_error_fits_a_line() -> None:
    assert one_line(ValueError("a\n  b")) == "ValueError: a b"
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line(ValueError("x" * 1000))) < 400


def test_a_few_rebuilds_are_forgiven_and_forgotten() -> None:
    history = FaultHistory()

    assert not any(history.note_rebuild(float(n)) for n in range(MOST_REBUILDS))
    assert history.note_rebuild(MOST_REBUILDS)
    assert not history.note_rebuild(1000.0)


def test_the_second_shortage_within_a_minute_counts() -> None:
    history = FaultHistory()

    assert [history.note_shortage(t) for t in (0.0, 61.0, 100.0)] == [False, False, True]


def test_broken_steps_count_in_a_row() -> None:
    history = FaultHistory()
    steps = [True, True, False, True, True, True]

    assert [history.note_step(is_broken=broken) for broken in steps] == [False] * 5 + [True]


def test_an_assertion_without_words_is_told_by_its_line() -> None:
    with pytest.raises(AssertionError) as caught:
        exec("assert not __name__")

    assert one_line(caught.value).startswith("AssertionError: <string>, line 1")
    assert one_line(AssertionError()) == "AssertionError"
