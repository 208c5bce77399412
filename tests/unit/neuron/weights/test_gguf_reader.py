"""What the tensors of a file take, by its header alone."""

from __future__ import annotations

import gguf as library
import numpy as np
import pytest

from services.neuron.weights import gguf
from services.neuron.weights.gguf_reader import BLOCKS
from tests.doubles import scripted


def test_sizes_of_blocks_are_those_of_the_formats_own_library():
    assert {int(kind): size for kind, size in library.GGML_QUANT_SIZES.items()} == BLOCKS


def test_a_whole_file_is_as_long_as_it_says(tmp_path):
    path = scripted.build(tmp_path / "m.gguf")

    assert gguf.part(path)[0] == path.stat().st_size


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "IQ4_XS", "Q6_K"])
def test_packed_tensors_are_counted_in_blocks(tmp_path, kind):
    path = tmp_path / "m.gguf"
    writer = library.GGUFWriter(path, "llama")
    packed = library.GGMLQuantizationType[kind]
    _, size = library.GGML_QUANT_SIZES[packed]
    writer.add_tensor_info("t", [3, 2 * size], np.dtype("uint8"), 6 * size, packed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()

    data_begin = -(-path.stat().st_size // 32) * 32
    assert gguf.part(path)[0] == data_begin + 6 * size
