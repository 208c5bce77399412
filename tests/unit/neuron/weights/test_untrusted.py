"""What a file says of itself is believed only where it can be true."""

from __future__ import annotations

import pytest

from services.neuron.weights import untrusted


@pytest.mark.parametrize("value", [True, -1, 1.5, "7", None, [1], 1 << 40, float("inf")])
def test_what_is_no_number_of_tokens_is_not_believed(value: object) -> None:
    with pytest.raises(untrusted.UntrustedFileError, match="context"):
        untrusted.whole("context", value)


def test_whole_numbers_may_be_written_with_a_point() -> None:
    assert untrusted.whole("context", 4096.0) == 4096
