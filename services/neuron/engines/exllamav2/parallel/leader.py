"""Rank 0's model: tells the other ranks of every forward pass and every copy within the cache."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator
from typing import Any

import torch
from exllamav2 import ExLlamaV2  # pyright: ignore[reportAttributeAccessIssue]

from services.neuron.engine_api.task import Value
from services.neuron.engines.exllamav2.parallel.collectives import Collectives
from services.neuron.engines.exllamav2.parallel.messages import CopyStates, RunForward, RunHead
from services.neuron.engines.exllamav2.parallel.model import RankModel

Tell = Callable[[Value], None]


class OutOfStepError(Exception):
    """A pass failed that the other ranks are in the middle of: the group must be replaced."""


class LeadingModel(ExLlamaV2):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """The library's model, with every pass announced before it runs.

    Attributes:
        instance_id: what the others know it by.
        tell: sends the others an order.
        drop: has them free it, and returns when they have.
    """

    instance_id: str
    tell: Tell
    drop: Callable[[str], None]
    _is_in_step = False

    def forward_chunk(self, input_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """The library's: one pass, with all of its options by name.

        Raises:
            OutOfStepError: it failed behind its announcement.
        """
        assert not args
        self.tell(_order(self.instance_id, input_ids, **kwargs))
        with self.in_step():
            return super().forward_chunk(input_ids, **kwargs)

    @contextlib.contextmanager
    def in_step(self) -> Generator[None]:
        """Context of a pass that all ranks run together: a failure within breaks the group.

        Raises:
            OutOfStepError: from whatever went wrong meanwhile.
        """
        self._is_in_step = True
        try:
            yield
        except Exception as error:
            raise OutOfStepError("A pass failed on rank 0, and the others wait in it.") from error
        finally:
            self._is_in_step = False

    @contextlib.contextmanager
    def head_in_step(self, collectives: Collectives, states: Any) -> Generator[None]:
        """Context of a run of the head, with or without a whole pass; all ranks run it together."""
        if self._is_in_step:
            yield
            return
        self.tell(RunHead(self.instance_id, tuple(states.shape)))
        with self.in_step():
            collectives.broadcast(states.contiguous())
            yield

    def unload(self) -> None:
        """The library's: frees the memory; here on every rank."""
        self.drop(self.instance_id)
        super().unload()


def lead(made: RankModel, instance_id: str, tell: Tell, drop: Callable[[str], None]) -> None:
    """Connects rank 0's model with the others'."""
    model, cache, collectives = made.model, made.cache, made.collectives
    model.instance_id, model.tell, model.drop = instance_id, tell, drop
    head = model.modules[model.head_layer_idx]
    head.beside = functools.partial(model.head_in_step, collectives)
    copy_states = cache.copy_states

    def copied(target: Any, source: int, tokens: int, to: int, *others: int) -> None:
        assert target is cache
        tell(CopyStates(instance_id, source, to, tokens))
        copy_states(target, source, tokens, to, *others)

    cache.copy_states = copied


def _order(
    instance_id: str,
    input_ids: Any,
    *,
    cache: Any = None,
    attn_params: Any = None,
    preprocess_only: bool = False,
    last_id_only: bool = False,
    **_others: Any,
) -> RunForward:
    rows, length = input_ids.shape
    pages = positions = b""
    longest = 0
    if cache is not None:
        pages = _bytes(attn_params.block_index, torch.int32)
        positions = _bytes(attn_params.cache_seqlens, torch.int32)
        longest = int(attn_params.max_cache_seqlen)
    return RunForward(
        instance_id=instance_id,
        rows=rows,
        length=length,
        token_ids=_bytes(input_ids, torch.long),
        pages=None if cache is None else pages,
        positions=positions,
        longest=longest,
        is_prefill=preprocess_only,
        is_last_only=last_id_only,
    )


def _bytes(tensor: Any, kind: Any) -> bytes:
    data: bytes = tensor.to("cpu", kind).contiguous().numpy().tobytes()
    return data
