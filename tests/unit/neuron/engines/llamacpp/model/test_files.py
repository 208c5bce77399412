"""What belongs to a model on the disk."""

from pathlib import Path

from services.neuron.engines.llamacpp.model.files import file_bytes


def test_all_parts_of_a_split_model_count_and_no_other_files(tmp_path: Path) -> None:
    for part, size in enumerate((3, 4, 5), 1):
        (tmp_path / f"m-{part:05}-of-00003.gguf").write_bytes(bytes(size))
    (tmp_path / "m.gguf").write_bytes(bytes(7))

    assert file_bytes(tmp_path / "m-00001-of-00003.gguf") == 12
    assert file_bytes(tmp_path / "m.gguf") == 7


def test_the_tensors_of_a_folder_count(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(bytes(3))
    (tmp_path / "b.safetensors").write_bytes(bytes(4))
    (tmp_path / "config.json").write_text("{}")

    assert file_bytes(tmp_path) == 7
