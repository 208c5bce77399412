"""An event loop whose clock jumps to the next timer, so that hours of waiting take no time."""

import asyncio
import selectors
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any


class HangError(Exception):
    """Nothing can ever happen again, yet somebody waits."""


class _Selector(selectors.DefaultSelector):
    loop: "VirtualTimeLoop"

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise HangError
        self.loop.now += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Raises HangError out of `run_until_complete` when there is neither work nor a timer."""

    def __init__(self) -> None:
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self
        self.now = 0.0
        self.set_default_executor(InlineExecutor())

    def time(self) -> float:
        return self.now


def _run(future: "Future[Any]", call: Callable[..., Any], args: Any, kwargs: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call(*args, **kwargs))
    except Exception as error:  # noqa: BLE001 - an executor hands on whatever was raised
        future.set_exception(error)


class InlineExecutor(ThreadPoolExecutor):
    """Runs at once, in the loop's own thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        _run(future, fn, args, kwargs)
        return future


class SlowExecutor(Executor):
    """One worker in virtual time: runs in order, each call after a delay of its own."""

    def __init__(self, loop: VirtualTimeLoop, delay: Callable[[], float]) -> None:
        self._loop = loop
        self._delay = delay
        self._free = 0.0
        self._waiting: deque[Callable[[], None]] = deque()  # timers of one moment have no order

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        self._free = max(self._free, self._loop.now) + self._delay()
        self._waiting.append(lambda: _run(future, fn, args, kwargs))
        self._loop.call_at(self._free, self._next)
        return future

    def _next(self) -> None:
        self._waiting.popleft()()
