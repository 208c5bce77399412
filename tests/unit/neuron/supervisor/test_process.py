"""What clients and operators are told of a worker's death."""

from __future__ import annotations

from services.neuron.supervisor.process import Death

DUMP = """\
worker: the driver said no to /srv/models/secret/model.gguf
Fatal Python error: Segmentation fault

Current thread 0x00007f (most recent call first):
  File "/srv/cortex/services/neuron/worker/loop.py", line 5 in run
  File "<frozen runpy>", line 88 in _run_code

Extension modules: numpy (total: 1)
"""


def test_neither_places_in_code_nor_paths_are_told():
    told = str(Death(-11, "the worker was ended by SIGSEGV", DUMP))

    assert told == "the worker was ended by SIGSEGV: worker: the driver said no to model.gguf"


def test_a_silent_death_has_its_cause():
    assert str(Death(1, "the worker exited with code 1", "")) == "the worker exited with code 1"
