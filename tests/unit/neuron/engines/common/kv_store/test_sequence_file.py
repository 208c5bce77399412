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


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "one.kv"
    sequence_file.write(path, SEQUENCE)
    return path


def test_what_was_written_is_read(path: pathlib.Path) -> None:
    read = sequence_file.read(path)

    assert read.tokens.tolist() == list(range(40))
    assert (read.state, read.checkpoints) == (SEQUENCE.state, SEQUENCE.checkpoints)
    assert sequence_file.read_head(path).lengths == (8, 24)


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
    sequence_file.write(path, SEQUENCE)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:place])
    else:
        bit = 1 << data.draw(st.integers(0, 7))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])

    try:
        read = sequence_file.read(path)
    except BadSequenceFileError:
        return
    # what the checksum does not cover: where checkpoints lie, which the engine checks
    assert (read.tokens.tolist(), read.state) == (SEQUENCE.tokens.tolist(), SEQUENCE.state)
