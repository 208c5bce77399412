"""What a visitor orders of the fleet (load, unload, pin, cordon, drain, reload) and asks of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

import msgspec
import structlog
from google.protobuf.message import Message

from cortex.v1 import operator_service_pb2 as op
from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason
from services.gateway.api.operators.call import OperatorCall, event_bytes
from services.gateway.api.operators.endpoint import Bodies
from services.gateway.api.operators.registry_operator import RegistryOperator
from services.gateway.console import encode
from services.gateway.dialects.common.json_body import bad, complained, not_json

# A line that says nothing, where a step takes long.
_KEEP_ALIVE_SECONDS: Final = 10.0
_KEEP_ALIVE: Final = event_bytes("beat", b"{}")
# The first step comes at once, or its refusal; a stream is begun without it after so long.
_FIRST_STEP_SECONDS: Final = 5.0

Name = Annotated[str, msgspec.Meta(min_length=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
Body = TypeVar("Body", bound=msgspec.Struct)

AUDITED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "load": "model.load",
        "unload": "model.unload",
        "pin": "model.pin",
        "unpin": "model.unpin",
        "cordon": "neuron.cordon",
        "uncordon": "neuron.uncordon",
        "drain": "neuron.drain",
        "reload": "catalogue.reload",
    }
)

log = structlog.get_logger()


class _OfModel(msgspec.Struct, forbid_unknown_fields=True):
    model: Name
    neuron: str = ""


class _Load(_OfModel, forbid_unknown_fields=True):
    attached: bool = False
    wait: bool = True


class _Unload(_OfModel, forbid_unknown_fields=True):
    drain_seconds: Seconds | None = None
    wait: bool = True


class _Unpin(msgspec.Struct, forbid_unknown_fields=True):
    model: Name


class _OfNeuron(msgspec.Struct, forbid_unknown_fields=True):
    neuron: Name


class _Drain(_OfNeuron, forbid_unknown_fields=True):
    drain_seconds: Seconds | None = None
    wait: bool = True


class _Reload(msgspec.Struct, forbid_unknown_fields=True):
    pass


BODIES: Final[Mapping[str, Bodies]] = MappingProxyType(
    {
        "load": Bodies(_Load),
        "unload": Bodies(_Unload),
        "pin": Bodies(_OfModel),
        "unpin": Bodies(_Unpin),
        "cordon": Bodies(_OfNeuron),
        "uncordon": Bodies(_OfNeuron),
        "drain": Bodies(_Drain),
        "reload": Bodies(_Reload),
    }
)
"""What each operation reads."""


class Operations:
    """Carries out operations, each with one line in the log.

    Load, unload and drain are streams of `step` events that end in `done` or `error`; with
    `wait = false` they are answered as soon as the fleet has taken them on, and go on by
    themselves. A client that leaves an attached load gives it up.

    Args:
        operator: asks the registry.
    """

    def __init__(self, operator: RegistryOperator) -> None:
        self._operator = operator

    def by_name(self) -> Mapping[str, Callable[[OperatorCall], Awaitable[None]]]:
        """Every operation by the last part of its path; `AUDITED` has their names for the log."""
        return {
            "load": self._load,
            "unload": self._unload,
            "pin": self._pin,
            "unpin": self._unpin,
            "cordon": self._cordon,
            "uncordon": self._uncordon,
            "drain": self._drain,
            "reload": self._reload,
        }

    async def explain(self, call: OperatorCall) -> None:
        """Where a model would go and why; changes nothing."""
        unknown = sorted(call.head.query.keys() - {"model"})
        if unknown:
            raise bad(unknown[0], "Only `model` is read.")
        model = call.head.query.get("model", "")
        if not model:
            raise bad("model", "Name a model: `?model=NAME`.")
        request = op.ExplainPlacementRequest(model=model)
        call.answer(encode.explanation(await self._operator.ask("ExplainPlacement", request)))

    async def _load(self, call: OperatorCall) -> None:
        body = _read(call, _Load)
        if body.attached and not body.wait:
            raise bad("wait", "An attached load ends with its request; `wait` has to be true.")
        request = op.LoadModelRequest(model=body.model, neuron=body.neuron, attached=body.attached)
        with self._told(call, "load", model=body.model, neuron=body.neuron):
            answers = self._operator.steps("LoadModel", request, metadata=call.metadata)
            await _stream(call, answers, lambda one: encode.step(one.step), wait=body.wait)

    async def _unload(self, call: OperatorCall) -> None:
        body = _read(call, _Unload)
        request = op.UnloadModelRequest(model=body.model, neuron=body.neuron)
        if body.drain_seconds is not None:
            request.drain_timeout.CopyFrom(protobuf_time.duration(body.drain_seconds))
        with self._told(call, "unload", model=body.model, neuron=body.neuron):
            answers = self._operator.steps("UnloadModel", request, metadata=call.metadata)
            await _stream(call, answers, _left, wait=body.wait)

    async def _drain(self, call: OperatorCall) -> None:
        body = _read(call, _Drain)
        request = op.DrainNeuronRequest(neuron=body.neuron)
        if body.drain_seconds is not None:
            request.timeout.CopyFrom(protobuf_time.duration(body.drain_seconds))
        with self._told(call, "drain", neuron=body.neuron):
            answers = self._operator.steps("DrainNeuron", request, metadata=call.metadata)
            await _stream(call, answers, _left, wait=body.wait)

    async def _pin(self, call: OperatorCall) -> None:
        body = _read(call, _OfModel)
        request = op.PinModelRequest(model=body.model, neuron=body.neuron)
        with self._told(call, "pin", model=body.model, neuron=body.neuron):
            await self._operator.ask("PinModel", request, metadata=call.metadata)
        call.answer({"model": body.model, "pinned": True})

    async def _unpin(self, call: OperatorCall) -> None:
        body = _read(call, _Unpin)
        with self._told(call, "unpin", model=body.model):
            request = op.UnpinModelRequest(model=body.model)
            await self._operator.ask("UnpinModel", request, metadata=call.metadata)
        call.answer({"model": body.model, "pinned": False})

    async def _cordon(self, call: OperatorCall) -> None:
        await self._change_neuron(call, "cordon", "CordonNeuron", op.CordonNeuronRequest)

    async def _uncordon(self, call: OperatorCall) -> None:
        await self._change_neuron(call, "uncordon", "UncordonNeuron", op.UncordonNeuronRequest)

    async def _change_neuron(
        self, call: OperatorCall, name: str, method: str, request: Callable[..., Message]
    ) -> None:
        body = _read(call, _OfNeuron)
        with self._told(call, name, neuron=body.neuron):
            message = request(neuron=body.neuron)
            answer = await self._operator.ask(method, message, metadata=call.metadata)
        call.answer({"neuron": encode.neuron(answer.neuron)})

    async def _reload(self, call: OperatorCall) -> None:
        _read(call, _Reload)
        with self._told(call, "reload"):
            request = op.ReloadCatalogueRequest()
            answer = await self._operator.ask("ReloadCatalogue", request, metadata=call.metadata)
        changes = {name: list(getattr(answer, name)) for name in ("added", "removed", "changed")}
        call.answer({"config_revision": answer.config_revision, **changes})

    @contextlib.contextmanager
    def _told(self, call: OperatorCall, operation: str, **facts: str) -> Generator[None]:
        """Logs who has ordered what, and what came of it."""
        facts = {name: value for name, value in facts.items() if value}
        call.target = ", ".join(f"{name}={value}" for name, value in facts.items())
        said = log.bind(
            operation=operation,
            principal=call.visitor.principal,
            request_id=call.head.request_id,
            **facts,
        )
        try:
            self._operator.require_operator()
            yield
        except FleetError as error:
            said.warning("console.refused", reason=error.reason.value, detail=error.message)
            raise
        except asyncio.CancelledError:
            said.info("console.left")
            raise
        said.info("console.operation")


async def _stream(
    call: OperatorCall,
    answers: AsyncGenerator[Any],
    shape: Callable[[Any], dict[str, Any]],
    *,
    wait: bool,
) -> None:
    """Passes the steps on as events, or answers with the first one alone."""
    async with contextlib.aclosing(answers):
        coming = asyncio.ensure_future(anext(answers, None))
        try:
            await asyncio.wait({coming}, timeout=_FIRST_STEP_SECONDS)
            if not wait:
                if not coming.done():
                    told = "The registry has not taken it on in time."
                    raise FleetError(Reason.REGISTRY_UNAVAILABLE, told, retry_after_seconds=2)
                first = coming.result()
                call.answer({"step": None if first is None else shape(first)}, status=202)
                return
            if coming.done():
                coming.result()  # a refusal before any step has a status of its own
            call.begin_events()
            while True:
                while not coming.done():
                    await asyncio.wait({coming}, timeout=_KEEP_ALIVE_SECONDS)
                    if not coming.done():
                        call.response.write(_KEEP_ALIVE)
                answer = coming.result()
                if answer is None:
                    break
                call.event("step", shape(answer))
                coming = asyncio.ensure_future(anext(answers, None))
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
    call.response.finish(event_bytes("done", b"{}"))


def _left(answer: Any) -> dict[str, Any]:
    """What an unload or a drain has still before it."""
    told = {
        "instances_left": answer.instances_left,
        "active_requests_left": answer.active_requests_left,
    }
    freed = getattr(answer, "freed_bytes", None)
    return told if freed is None else {**told, "freed_bytes": freed}


def _read(call: OperatorCall, shape: type[Body]) -> Body:
    """The body of an operation.

    Raises:
        FleetError: BAD_REQUEST with the field at fault.
    """
    try:
        return msgspec.json.decode(call.body or b"{}", type=shape)
    except msgspec.ValidationError as complaint:
        raise complained(complaint) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise not_json(broken) from None
