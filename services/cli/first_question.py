"""The first question of `cortex up`: waits for the fleet, loads a model, asks it something."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

from google.protobuf.message import Message

from cortex.v1 import model_pb2
from cortex.v1 import operator_service_pb2 as op
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.calls import streaming
from services.backplane.timeouts import timeout
from services.cli.answers import answer
from services.cli.local_fleet import LocalFleet
from services.cli.registry_client import ask, operator
from services.cli.sse import ChatFailedError, GatewayClient
from services.cli.tables import step_words
from services.cli.terminal import keep_waiting, out, waiting

DEFAULT_MODEL: Final = "smollm2-135m"
_READY_SECONDS: Final = 60.0
# A first start downloads the weights (93 MB).
_MODEL_SECONDS: Final = 900.0
_POLL_SECONDS: Final = 0.05
_OK: Final = 200


class Question:
    """A question for a fleet that has just been started.

    Attributes:
        model: the one that is asked; empty until one is chosen.
        is_ready: whether the fleet can be used.
    """

    def __init__(self, *, model: str, ask: str, api_key: str) -> None:
        self.model = model
        self.is_ready = False
        self._ask = ask
        self._api_key = api_key

    async def put(self, fleet: LocalFleet) -> str:
        """Prints the answer.

        Returns: why there is none, in words; empty where there is one.
        """
        try:
            with waiting("starting registry, neuron and gateway"):
                if fleet.why_not_asked:
                    await _until_led(fleet)
                else:
                    await _until_ready(_client(fleet, ""))
            self.is_ready = True
            self.model = self.model or await _choose(fleet)
            await _load(fleet, self.model)
            await self._put(fleet)
        except (ChatFailedError, FleetError, TimeoutError, OSError) as error:
            return error.message if isinstance(error, FleetError) else str(error)
        return ""

    async def _put(self, fleet: LocalFleet) -> None:
        key = fleet.key(self._api_key)
        if fleet.why_not_asked or key is None:
            why = fleet.why_not_asked or "it needs a key (--api-key)"
            raise ChatFailedError(f"{self.model} is loaded, the first question was not put: {why}")
        out.print(self._ask, style="dim")
        messages = [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": self._ask},
        ]
        await asyncio.to_thread(
            answer, _client(fleet, key), self.model, messages, temperature=0, max_tokens=64
        )


def _client(fleet: LocalFleet, key: str) -> GatewayClient:
    tls = fleet.gateway.tls
    certificate = None if tls is None else tls.certificate
    return GatewayClient(fleet.gateway_url, api_key=key, certificate=certificate)


async def _ask(local: LocalFleet, method: str, request: Message) -> Any:
    return await ask(local.registry_address, method, request, local.credentials)


async def _until_led(local: LocalFleet) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            await _ask(local, "GetFleet", op.GetFleetRequest())
        except FleetError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return


async def _until_ready(client: GatewayClient) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            code, _ = await asyncio.to_thread(client.get, "/readyz", timeout=2.0)
            if code == _OK:
                return
        await asyncio.sleep(_POLL_SECONDS)
    raise TimeoutError(f"the gateway was not ready within {_READY_SECONDS:.0f} s")


async def _choose(local: LocalFleet) -> str:
    """The usual model where the fleet has it, or else its first one that can chat.

    Raises:
        ChatFailedError: none can.
    """
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        # first the neurons: what lies on their disks is known from the moment they are here
        fleet: op.GetFleetResponse = await _ask(local, "GetFleet", op.GetFleetRequest())
        listed: op.ListModelsResponse = await _ask(local, "ListModels", op.ListModelsRequest())
        names = [
            each.model.model
            for each in listed.models
            if model_pb2.CAPABILITY_CHAT in each.model.capabilities or not each.model.capabilities
        ]
        if names:
            return DEFAULT_MODEL if DEFAULT_MODEL in names else names[0]
        if fleet.neurons or time.monotonic() > deadline:
            raise ChatFailedError("no model here can chat, so there was no first question")
        await asyncio.sleep(_POLL_SECONDS)


async def _load(local: LocalFleet, model: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            reached = operator(local.registry_address, local.credentials)
            async with timeout(_MODEL_SECONDS), reached as stub:
                call = stub.LoadModel(op.LoadModelRequest(model=model))
                with waiting(f"{model}: asks for a place") as status:
                    async with streaming(call, unavailable=Reason.REGISTRY_UNAVAILABLE) as answers:
                        async for each in answers:
                            keep_waiting(status, f"{model}: {step_words(each.step)}")
        except FleetError as error:
            # the neuron may still be on its way to the registry
            if error.reason is not Reason.NO_NEURONS or time.monotonic() > deadline:
                raise
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return
