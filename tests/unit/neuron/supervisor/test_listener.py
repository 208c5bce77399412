from __future__ import annotations

from services.neuron.supervisor.listener import WorkerKey
from services.neuron.supervisor.process import environment

IDS = ("GPU-a", "GPU-b")


def made(key: WorkerKey) -> dict[str, str]:
    inherited = {"NCCL_DEBUG": "INFO", "SECRET": "x"}
    return environment(inherited, device_ids=key.shown_ids, settings=key.variables)


def test_a_worker_over_several_gpus_sees_all_of_them():
    env = made(WorkerKey("exllamav2", IDS))

    assert env["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    assert "CORTEX_RANK_DEVICE_IDS" not in env


def test_the_first_process_of_a_group_sees_its_own_gpu_and_is_told_of_all():
    env = made(WorkerKey("exllamav2", IDS, is_divided=True))

    assert env["CUDA_VISIBLE_DEVICES"] == "GPU-a"
    assert env["CORTEX_RANK_DEVICE_IDS"] == "GPU-a,GPU-b"
    assert env["NCCL_DEBUG"] == "INFO"
    assert "SECRET" not in env
