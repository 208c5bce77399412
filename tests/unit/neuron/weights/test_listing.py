"""What is offered of a folder that people copy files into."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import shutil

import gguf
import pytest

from services.neuron.weights import inspect
from services.neuron.weights.listing import Listing
from tests.doubles import random_llama, scripted
from tests.doubles.scripted import Script


@pytest.fixture
def whole(tmp_path: pathlib.Path) -> bytes:
    return scripted.build(tmp_path / "m.gguf").read_bytes()


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    made = tmp_path / "models"
    made.mkdir()
    return made


def test_a_file_is_offered_once_it_is_whole_and_has_stood_still(folder, whole):
    listing, path = Listing([folder]), folder / "m.gguf"
    assert listing.offered() == ({}, [])

    for size in (10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        for _ in range(2):
            found, problems = listing.offered()
            assert found == {}
            assert "m.gguf is" in problems[0]
    path.write_bytes(whole)

    assert listing.offered() == ({}, [])
    assert list(listing.offered()[0]) == ["m"]


def test_a_copy_that_has_its_full_length_from_the_beginning_is_not_offered(folder, whole):
    """As `rsync --preallocate` and downloaders make them: header and size say nothing."""
    listing, path = Listing([folder]), folder / "m.gguf"
    listing.offered()
    with path.open("wb") as file:
        file.truncate(len(whole))
        file.write(whole[:-100])
        for _ in range(3):
            file.write(whole[:1])
            file.seek(-1, 1)
            file.flush()
            os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))
            assert listing.offered()[0] == {}
    path.write_bytes(whole)
    listing.offered()

    assert list(listing.offered()[0]) == ["m"]


def test_what_lies_there_at_the_first_look_is_offered_at_once(folder, whole):
    (folder / "m.gguf").write_bytes(whole)

    assert list(Listing([folder]).offered()[0]) == ["m"]


def test_what_stays_as_it_is_is_read_once(folder, whole, monkeypatch):
    (folder / "m.gguf").write_bytes(whole)
    (folder / "bad.gguf").write_bytes(b"no")
    listing, read = Listing([folder]), list[pathlib.Path]()
    inspected = inspect.inspect

    def noted(path):
        read.append(path)
        return inspected(path)

    monkeypatch.setattr(inspect, "inspect", noted)

    first = listing.offered()
    assert listing.offered() == first == listing.now()
    assert len(read) == 2
    described = listing.described("m", first[0]["m"])
    assert listing.described("m", listing.offered()[0]["m"]) is described

    os.utime(folder / "m.gguf", (1, 1))
    listing.offered()
    assert len(read) == 3


def test_a_file_that_goes_is_offered_no_longer(folder, whole):
    (folder / "m.gguf").write_bytes(whole)
    listing = Listing([folder])
    assert list(listing.offered()[0]) == ["m"]

    (folder / "m.gguf").unlink()

    assert listing.offered() == ({}, [])


def test_several_quantisations_in_a_folder_are_one_name_and_the_preferred_one(folder, whole):
    (folder / "Qwen-GGUF").mkdir()
    for name in ("Qwen-Q4_K_M.gguf", "Qwen-Q8_0.gguf", "Qwen-UD-IQ2_XXS.gguf", "mmproj-F16.gguf"):
        (folder / "Qwen-GGUF" / name).write_bytes(whole)

    def preferred(several):
        return next(one for one in several if "Q4_K_M" in one.path.name)

    found, problems = Listing([folder], preferred).now()

    assert not problems
    assert sorted(found) == ["Qwen", "Qwen:Q4_K_M", "Qwen:Q8_0", "Qwen:UD-IQ2_XXS"]
    assert found["Qwen"] is found["Qwen:Q4_K_M"]
    assert found["Qwen:Q8_0"].path.name == "Qwen-Q8_0.gguf"


def test_one_quantisation_alone_and_those_of_the_models_folder_keep_their_files_names(
    folder, whole
):
    (folder / "sub").mkdir()
    for name in ("a-Q4_K_M.gguf", "a-Q8_0.gguf", "sub/b-Q4_K_M.gguf", "sub/c.q8_0.gguf"):
        (folder / name).write_bytes(whole)

    assert sorted(Listing([folder]).now()[0]) == ["a-Q4_K_M", "a-Q8_0", "b-Q4_K_M", "c.q8_0"]


def test_split_quantisations_are_one_model_each_and_not_offered_before_all_parts_are_there(
    folder, monkeypatch
):
    in_parts = functools.partial(gguf.GGUFWriter, split_max_tensors=4)
    monkeypatch.setattr("tests.doubles.scripted.gguf.GGUFWriter", in_parts)
    made = folder / "m"
    made.mkdir()
    for label in ("Q4_K_M", "Q8_0"):
        scripted.build(made / f"m-{label}.gguf")
    parts = sorted(made.glob("m-Q8_0-*.gguf"))
    assert len(parts) > 1
    assert sorted(Listing([folder]).now()[0]) == ["m", "m:Q4_K_M", "m:Q8_0"]

    last = parts[-1].read_bytes()
    parts[-1].write_bytes(last[:-1])
    found, problems = Listing([folder]).now()
    assert list(found) == ["m-Q4_K_M"]
    assert "is not whole" in problems[0]

    parts[-1].unlink()
    assert list(Listing([folder]).now()[0]) == ["m-Q4_K_M"]


def test_a_file_without_a_chat_template_completes_and_does_not_chat(folder):
    scripted.build(folder / "plain.gguf", Script(chat_template=None))
    scripted.build(folder / "chat.gguf")
    listing = Listing([folder])

    can = {
        name: [int(one) for one in listing.described(name, weights).capabilities]
        for name, weights in listing.now()[0].items()
    }

    assert can == {"chat": [1, 2], "plain": [2]}


def test_a_folder_of_safetensors_is_offered_once_no_part_is_missing(folder):
    made = folder / "st"
    made.mkdir()
    head = json.dumps({"t": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    data = len(head).to_bytes(8, "little") + head + b"abcd"
    (made / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (made / "model-00001-of-00002.safetensors").write_bytes(data)
    index = {"weight_map": {"t": "model-00001-of-00002.safetensors", "u": "two.safetensors"}}
    (made / "model.safetensors.index.json").write_text(json.dumps(index))

    assert Listing([folder]).now() == ({}, ["st is not whole: two.safetensors is missing."])
    (made / "two.safetensors").write_bytes(data[:-1])
    assert "two.safetensors has 77 of 78 bytes" in Listing([folder]).now()[1][0].replace(
        str(len(data) - 1), "77"
    ).replace(str(len(data)), "78")
    shutil.copy(made / "model-00001-of-00002.safetensors", made / "two.safetensors")
    assert list(Listing([folder]).now()[0]) == ["st"]


def test_parts_without_the_first_and_a_first_without_the_others_say_what_is_missing(folder, whole):
    (folder / "m-00002-of-00003.gguf").write_bytes(whole)
    (folder / "m-00003-of-00003.gguf").write_bytes(whole)
    found, problems = Listing([folder]).now()
    assert not found
    (told,) = problems
    assert "first part, m-00001-of-00003.gguf, is not here" in told

    (folder / "m-00001-of-00003.gguf").write_bytes(whole)
    (folder / "m-00002-of-00003.gguf").unlink()
    found, problems = Listing([folder]).now()

    assert not found
    assert problems == ["There is no file m-00002-of-00003.gguf here."]


def test_parts_that_were_renamed_or_joined_are_not_offered_and_say_why(folder, tmp_path):
    random_llama.build(tmp_path / "r.gguf", tensors_per_file=8)
    parts = sorted(tmp_path.glob("r-*-of-*.gguf"))
    assert len(parts) > 1
    (folder / "joined.gguf").write_bytes(b"".join(part.read_bytes() for part in parts))

    found, problems = Listing([folder]).now()

    assert not found
    (told,) = problems
    assert f"joined.gguf is a part of a model of {len(parts)} parts" in told
    for part in parts:
        shutil.copy(part, folder)
    assert "r" in Listing([folder]).now()[0]


def test_of_two_with_one_name_the_second_is_told_unless_it_is_the_same_file(folder, whole):
    for name in ("a", "b", "c"):
        (folder / name).mkdir()
    (folder / "a" / "model.gguf").write_bytes(whole)
    (folder / "b" / "model.gguf").write_bytes(whole)
    (folder / "c" / "model.gguf").symlink_to(folder / "a" / "model.gguf")

    found, problems = Listing([folder]).now()

    assert found["model"].path == folder / "a" / "model.gguf"
    (told,) = problems
    first, second = folder / "a" / "model.gguf", folder / "b" / "model.gguf"
    assert told == f"{second} cannot be asked for: {first} is called model too."


def test_links_are_further_names_of_the_file(folder, whole):
    (folder / "m.gguf").write_bytes(whole)
    (folder / "a-nickname.gguf").symlink_to("m.gguf")
    (folder / "hidden").mkdir()
    (folder / "hidden" / "blob").write_bytes(whole)
    for number in (1, 2):
        (folder / f"snapshot{number}.gguf").symlink_to(folder / "hidden" / "blob")

    found, problems = Listing([folder]).now()

    assert problems == []
    assert found["a-nickname"] is found["m"]
    assert found["m"].path == folder / "m.gguf"
    assert found["snapshot1"] is found["snapshot2"]


def test_an_ending_in_capitals_is_told(folder, whole):
    (folder / "M.GGUF").write_bytes(whole)

    found, problems = Listing([folder]).now()

    assert not found
    assert problems == ["M.GGUF is left out: its name has to end in .gguf, in small letters."]
