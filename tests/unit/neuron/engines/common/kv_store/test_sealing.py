import pathlib
import threading

import pytest

from services.neuron.engines.common.kv_store.sealing import (
    KEY_BYTES,
    BadSealError,
    Seal,
    make_key,
    read_key,
)


def seal(place: str = "p", salt: bytes = b"s" * 16) -> Seal:
    return Seal(b"k" * KEY_BYTES, salt=salt, place=place)


def test_chunks_open_in_their_order() -> None:
    sealed, opened = seal(), seal()
    chunks = [sealed.seal(chunk) for chunk in (b"one", b"two")]

    assert [opened.open(chunk) for chunk in chunks] == [b"one", b"two"]
    with pytest.raises(BadSealError):
        seal().open(chunks[1])


def test_equal_files_of_two_places_or_salts_are_sealed_differently() -> None:
    made = {seal(place, salt).seal(b"x") for place in "pq" for salt in (b"a" * 16, b"b" * 16)}

    assert len(made) == 4


def test_two_neurons_that_start_together_have_one_key(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "kv.key"
    threads = [threading.Thread(target=make_key, args=(path,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(read_key(path)) == KEY_BYTES
