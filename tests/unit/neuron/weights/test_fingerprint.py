from __future__ import annotations

import pathlib

import pytest

from services.neuron.weights.fingerprint import fingerprint

SIZE = 300_000


def written(path: pathlib.Path, data: bytes) -> pathlib.Path:
    path.write_bytes(data)
    return path


def test_one_model_has_one_fingerprint_wherever_it_lies(tmp_path):
    data = bytes(range(256)) * 10

    assert fingerprint([written(tmp_path / "a", data)]) == fingerprint(
        [written(tmp_path / "b", data)]
    )


@pytest.mark.parametrize("position", [0, 70_000 - 1 - 64 * 1024, SIZE - 1])
def test_a_byte_at_either_end_makes_another(tmp_path, position):
    data = bytearray(SIZE)
    before = fingerprint([written(tmp_path / "a", bytes(data))])

    data[position] = 1

    assert fingerprint([written(tmp_path / "a", bytes(data))]) != before


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1])
def test_a_longer_file_is_another(tmp_path, size):
    short, long = bytes(size), bytes(size + 1)

    assert fingerprint([written(tmp_path / "a", short)]) != fingerprint(
        [written(tmp_path / "b", long)]
    )


def test_where_one_file_ends_and_the_next_begins_counts(tmp_path):
    one, two = written(tmp_path / "1", b"ab"), written(tmp_path / "2", b"c")
    other = [written(tmp_path / "3", b"a"), written(tmp_path / "4", b"bc")]

    assert fingerprint([one, two]) != fingerprint(other)
