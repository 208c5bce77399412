import pathlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.neuron.engines.common.kv_store import sequence_file
from services.neuron.engines.common.kv_store.sequence_file import (
    BadSequenceFileError,
    SavedSequence,
)

SEQUENCE = SavedSequence(
    np.arange(40, dtype=np.int32), b"the state" * 9, ((8, b"early"), (24, b"later"))
)


KEY, OTHER = b"k" * 32, b"o" * 32
keys = pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "model" / "scope" / "one.kv"
    path.parent.mkdir(parents=True)
    sequence_file.write(path, SEQUENCE)
    return path


@keys
def test_what_was_written_is_read(path: pathlib.Path, key: bytes | None) -> None:
    sequence_file.write(path, SEQUENCE, key=key)

    read = sequence_file.read(path, key=key)

    assert read.tokens.tolist() == list(range(40))
    assert (read.state, read.checkpoints) == (SEQUENCE.state, SEQUENCE.checkpoints)
    assert sequence_file.read_head(path, key=key).lengths == (8, 24)
    assert path.stat().st_size <= SEQUENCE.size_bytes


@keys
def test_states_of_several_chunks_are_read(
    path: pathlib.Path, key: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence_file, "_CHUNK_BYTES", 16)
    sequence_file.write(path, SEQUENCE, key=key)

    assert sequence_file.read(path, key=key).state == SEQUENCE.state
    assert path.stat().st_size <= SEQUENCE.size_bytes


def test_an_encrypted_file_shows_nothing_and_opens_with_its_key_alone(path: pathlib.Path) -> None:
    sequence_file.write(path, SEQUENCE, key=KEY)

    assert b"the state" not in path.read_bytes()
    for key in (OTHER, None):
        with pytest.raises(BadSequenceFileError):
            sequence_file.read(path, key=key)
        with pytest.raises(BadSequenceFileError):
            sequence_file.read_head(path, key=key)


def test_where_a_key_is_wanted_a_plain_file_is_no_sequence(path: pathlib.Path) -> None:
    with pytest.raises(BadSequenceFileError):
        sequence_file.read(path, key=KEY)


def test_an_encrypted_file_is_worth_nothing_in_anothers_folder(path: pathlib.Path) -> None:
    sequence_file.write(path, SEQUENCE, key=KEY)
    moved = path.parent.parent / "another" / path.name
    moved.parent.mkdir()
    path.rename(moved)

    with pytest.raises(BadSequenceFileError):
        sequence_file.read(moved, key=KEY)


def test_only_its_owner_can_read_it_and_no_part_is_left(path: pathlib.Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_gone_leaves_nothing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        sequence_file.write(tmp_path / "gone" / "one.kv", SEQUENCE)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(data=st.data())
def test_a_damaged_file_is_never_taken_for_a_sequence(
    path: pathlib.Path, data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from([None, KEY]))
    sequence_file.write(path, SEQUENCE, key=key)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:place])
    else:
        bit = 1 << data.draw(st.integers(0, 7))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])

    try:
        read = sequence_file.read(path, key=key)
    except BadSequenceFileError:
        return
    assert key is None
    # what the checksum does not cover: where checkpoints lie, which the engine checks
    assert (read.tokens.tolist(), read.state) == (SEQUENCE.tokens.tolist(), SEQUENCE.state)
