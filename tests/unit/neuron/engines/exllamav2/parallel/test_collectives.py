from __future__ import annotations

import pytest

pytest.importorskip("torch")

from services.neuron.engines.exllamav2.parallel.collectives import (
    GLOO,
    NCCL,
    NoCollectivesError,
    backend,
)


def test_gpus_meet_over_nccl_and_others_over_gloo():
    assert backend(has_cuda=True, has_nccl=True, has_gloo=True) == NCCL
    assert backend(has_cuda=False, has_nccl=True, has_gloo=True) == GLOO


def test_gpus_without_nccl_are_refused_in_words():
    with pytest.raises(NoCollectivesError, match='parallel = "tensor" needs NCCL'):
        backend(has_cuda=True, has_nccl=False, has_gloo=True)
