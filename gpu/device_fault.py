"""A real error of the device in the middle of a batch: the loop must see it for what it is."""

from __future__ import annotations

from typing import Any

from gpu.bench_setting import EMULATED, keep, models


def main() -> None:
    """Keeps what the loop raised. The process's device context is lost afterwards."""
    if EMULATED:
        keep("device_fault", {"skipped": "emulated"})
        return
    import torch

    from services.neuron.engine import EnginePoisoned
    from services.neuron.engines import create_engine
    from tests.contract.engine.driving import submit
    from tests.exllamav2.loading_models import load, task

    name = next(name for name in models() if name.endswith("-fp16"))
    model: Any = load(create_engine("exllamav2"), models()[name])
    submit(model, *[task(f"stream {n} ", tokens=200) for n in range(4)])
    for _ in range(10):
        model.step()
    # A device-side assertion: it surfaces at the loop's next synchronisation.
    torch.zeros(4, device="cuda")[torch.tensor([1 << 30], device="cuda")]
    said = "nothing"
    try:
        for _ in range(20):
            model.step()
    except EnginePoisoned as error:
        said = str(error)
    keep("device_fault", {"poisoned": said != "nothing", "said": said[:300]})


if __name__ == "__main__":
    main()
