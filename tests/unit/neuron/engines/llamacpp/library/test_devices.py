import pytest

from services.neuron.devices.ggml import pci_id
from services.neuron.engines.llamacpp.library.devices import listed
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.locate import locate
from tests.doubles import vulkan_library


def test_a_library_without_gpus_lists_the_cpu(library: Library) -> None:
    (cpu,) = listed(library)

    assert (cpu.device_id, cpu.kind, cpu.is_gpu) == ("cpu", "cpu", False)
    assert cpu.memory_total_bytes > 0


def test_backends_of_the_librarys_own_folder_are_loaded_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if (why := vulkan_library.missing()) is not None:
        pytest.skip(why)
    for name, value in vulkan_library.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GGML_BACKEND_PATH", "/nowhere/libggml-other.so")

    made = Library(locate(str(vulkan_library.FOLDER)))

    found = {device.device_id: device for device in listed(made)}
    assert set(found) == {vulkan_library.DEVICE_ID, "cpu"}
    gpu = found[vulkan_library.DEVICE_ID]
    assert (gpu.backend, gpu.is_gpu) == ("Vulkan", True)
    assert gpu.memory_total_bytes == vulkan_library.DEVICE_BYTES
    assert "other.so" not in made.log.last_words()


@pytest.mark.parametrize("told", ["0000:01:00.0", "00000000:01:00.0", "0000:01:00.0".upper()])
def test_a_pci_address_is_one_id_whoever_tells_it(told: str) -> None:
    assert pci_id(told) == "pci-0000:01:00.0"
