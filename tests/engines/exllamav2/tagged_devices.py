"""Several devices on a CPU: tensors know where they lie, and what mixes two devices fails as on CUDA.

A mode of torch's sees every call. It runs on the CPU, and remembers for each memory which device it
would lie on. Values never differ from those of one device; places do: a tensor that was not moved, or
moved to the wrong device, raises what CUDA raises.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.engines.exllamav2 import emulation

HOST = -1
_DEVICE: Any = torch.Tensor.device.__get__
_IS_CUDA: Any = torch.Tensor.is_cuda.__get__
_MIXING = frozenset({"copy_", "__getitem__", "__setitem__", "set_data", "__set__", "shape", "size"})
"""Calls that torch allows between devices, or that look at no values."""


class Devices(TorchFunctionMode):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """Where tensors lie.

    Attributes:
        moves: how many tensors went from one device to another.
    """

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[int, int] = {}
        self.moves = 0

    def of(self, tensor: Any) -> int:
        """The index of a tensor's device, or `HOST`."""
        return self._places.get(_memory(tensor), HOST)

    def __torch_function__(
        self, func: Any, _types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func in {_DEVICE, _IS_CUDA}:
            place = self.of(args[0])
            if place == HOST:
                return func(*args)
            return True if func is _IS_CUDA else torch.device("cuda", place)
        if name in {"to", "cpu", "cuda"}:
            return self._move(func, args, named)
        found = [t for t in _tensors((args, named)) if not _is_meta(t)]
        if name == "numpy" and self.of(args[0]) != HOST:
            raise TypeError("can't convert cuda device type tensor to numpy")
        place = self._common(name, found)
        if named.get("device") is not None:
            target = _index(named["device"])
            if target is None:
                return func(*args, **named)
            place, named["device"] = target, "cpu"
        if name in {"copy_", "__getitem__"}:
            place = self.of(args[0])
        made = func(*args, **named)
        self._put(made, place)
        return made

    def _common(self, name: str, tensors: Sequence[Any]) -> int:
        places = {self.of(tensor) for tensor in tensors if tensor.dim() or self.of(tensor) != HOST}
        if len(places) > 1 and name not in _MIXING:
            told = f"{name}: expected all tensors to be on the same device, found {sorted(places)}"
            raise RuntimeError(told)
        return max(places, default=HOST)

    def _move(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        source = args[0]
        target = here = self.of(source)
        kept: list[Any] = [source]
        if func.__name__ == "cpu":
            target = HOST
        for argument in (*args[1:], *([named.pop("device")] if "device" in named else ())):
            if isinstance(argument, torch.Tensor):
                target = self.of(argument)
                kept.append(argument.dtype)
            elif isinstance(argument, str | int | torch.device) and not isinstance(argument, bool):
                index = _index(argument)
                if index is None:
                    return func(*args, **named)
                target = index
            else:
                kept.append(argument)
        asks_more = len(kept) > 1 or named.keys() - {"non_blocking"}
        made = torch.Tensor.to(*kept, **named) if asks_more else source
        if target != here:
            self.moves += 1
            # Memory of its own: what is written to the copy must not show in the source.
            made = made.clone() if _memory(made) == _memory(source) else made
        self._put(made, target)
        return made

    def _put(self, made: Any, place: int) -> None:
        for tensor in _tensors(made):
            if place == HOST:
                self._places.pop(_memory(tensor), None)
            else:
                self._places[_memory(tensor)] = place


def _memory(tensor: Any) -> int:
    with torch._C.DisableTorchFunction():
        return int(tensor.untyped_storage()._cdata)


def _is_meta(tensor: Any) -> bool:
    with torch._C.DisableTorchFunction():
        return bool(tensor.is_meta)


def _tensors(what: Any) -> Iterator[Any]:
    if type(what) in {torch.Tensor, torch.nn.Parameter}:  # others (a causal bias) hold no values
        yield what
    elif isinstance(what, list | tuple):
        for one in what:
            yield from _tensors(one)
    elif isinstance(what, dict):
        yield from _tensors(list(what.values()))


def _index(device: Any) -> int | None:
    """A device's index; None for those that hold no values."""
    if isinstance(device, int):
        return device
    match = re.fullmatch(r"(cpu|cuda|meta)(?::(\d+))?", str(device))
    assert match is not None, device
    if match[1] == "meta":
        return None
    return HOST if match[1] == "cpu" else int(match[2] or 0)


def _checked(devices: Devices, function: Any) -> Any:
    """A function of the extension, which as on CUDA takes tensors of one device alone."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        found = [t for t in _tensors(args) if not _is_meta(t)]
        assert len({devices.of(tensor) for tensor in found}) <= 1, function.__name__
        with torch._C.DisableTorchFunction():
            return function(*args)

    return call


class _Torch(types.ModuleType):
    """torch, where a number names a CUDA device although there is none."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def device(named: Any) -> torch.device:
        return torch.device("cuda", named) if isinstance(named, int) else torch.device(named)


@contextlib.contextmanager
def several(monkeypatch: pytest.MonkeyPatch, count: int = 2) -> Iterator[Devices]:
    """So many devices of 8 GiB, as the library and we see them."""

    def properties(index: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(
            major=9, minor=0, multi_processor_count=132, uuid=f"device-{index}",
            total_memory=emulation.TOTAL_BYTES,
        )  # fmt: skip

    devices = Devices()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    compat = sys.modules["exllamav2.compat"]
    monkeypatch.setattr(compat, "tested_peer_copy", None)
    monkeypatch.setattr(compat, "torch", _Torch("torch"))
    for name, module in list(sys.modules.items()):
        if name.startswith("exllamav2") and name != emulation.EXTENSION:
            for function, real in emulation.REPLACED.items():
                if hasattr(module, function):
                    monkeypatch.setattr(module, function, real)
    extension = sys.modules[emulation.EXTENSION]
    for name, function in list(vars(extension).items()):
        if not name.startswith("__") and callable(function):
            monkeypatch.setattr(extension, name, _checked(devices, function))
    with devices:
        yield devices
