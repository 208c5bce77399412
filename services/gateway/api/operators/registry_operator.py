"""What operators ask of the registry, asked by the gateway for the visitors of its console.

The registry looks at certificates, not at keys: a gateway's own may look (`GetFleet`,
`ExplainPlacement`), and operates only where it is an operator's too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any, Final

from google.protobuf.message import Message

from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc as operator_grpc
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.calls import streaming, unary
from services.backplane.rpc.channels import ChannelPool
from services.backplane.security.roles import Role
from services.gateway.routing.registry_client import RegistryClient

# A registry answers from memory; longer than this it is not there.
_ANSWER_SECONDS: Final = 10.0
Metadata = Sequence[tuple[str, str]]
_ELSEWHERE: Final = frozenset({Reason.NOT_LEADER, Reason.REGISTRY_UNAVAILABLE})


class RegistryOperator:
    """Calls the OperatorService of the registry that leads.

    Args:
        channels: to registries.
        client: knows which of them is followed.
    """

    def __init__(self, channels: ChannelPool, client: RegistryClient) -> None:
        self._channels = channels
        self._client = client

    def refused(self) -> str:
        """Why the gateway may not operate, in a sentence; empty where it may."""
        credentials = self._channels.credentials
        if credentials is None or Role.OPERATOR in credentials.own_roles:
            return ""
        return (
            "The gateway's certificate is no operator's, so that nobody can operate through it:"
            " `cortex pki issue gateway operator` makes one that is both."
        )

    def require_operator(self) -> None:
        """Checks that the gateway may operate.

        Raises:
            FleetError: FORBIDDEN: its certificate is none of an operator.
        """
        if told := self.refused():
            raise FleetError(Reason.FORBIDDEN, told)

    async def fleet(self) -> op.GetFleetResponse:
        """The fleet as its leader sees it.

        Raises:
            FleetError: no leader has answered.
        """
        turns = _Turns(self._client.candidates())
        for address in turns:
            call = self._stub(address).GetFleet(op.GetFleetRequest(), timeout=_ANSWER_SECONDS)
            try:
                answer = await unary(call, unavailable=Reason.REGISTRY_UNAVAILABLE)
            except FleetError as error:
                turns.note(error)
                continue
            if answer.registry.role != "standby":
                return answer
            facts = {"leader_address": answer.registry.leader_address}
            turns.note(FleetError(Reason.NOT_LEADER, f"{address} does not lead.", facts=facts))
        raise turns.refusal

    async def ask(
        self,
        method: str,
        request: Message,
        service: Callable[[Any], Any] = operator_grpc.OperatorServiceStub,
        metadata: Metadata = (),
    ) -> Any:
        """Makes one call to the registry and returns its answer.

        Args:
            method: its name.
            request: its message.
            service: the stub that has the method.
            metadata: who has asked for it, for the registry's audit log.

        Raises:
            FleetError: as the registry said it.
        """
        turns = _Turns(self._client.candidates())
        for address in turns:
            stub = service(self._channels.get(address, role=Role.REGISTRY))
            call = getattr(stub, method)(request, timeout=_ANSWER_SECONDS, metadata=metadata)
            try:
                return await unary(call, unavailable=Reason.REGISTRY_UNAVAILABLE)
            except FleetError as error:
                turns.note(error)
        raise turns.refusal

    async def steps(
        self, method: str, request: Message, metadata: Metadata = ()
    ) -> AsyncGenerator[Any]:
        """The answers of a call that goes on; the registry decides how long.

        Raises:
            FleetError: as the registry said it.
        """
        turns = _Turns(self._client.candidates())
        for address in turns:
            has_begun = False
            call = getattr(self._stub(address), method)(request, metadata=metadata)
            try:
                async with streaming(call, unavailable=Reason.REGISTRY_UNAVAILABLE) as answers:
                    async for answer in answers:
                        has_begun = True
                        yield answer
                return
            except FleetError as error:
                if has_begun:
                    raise
                turns.note(error)
        raise turns.refusal

    def _stub(self, address: str) -> operator_grpc.OperatorServiceAsyncStub:
        return operator_grpc.OperatorServiceStub(self._channels.get(address, role=Role.REGISTRY))


class _Turns:
    """The registries in the order in which they are asked; who leads is asked next.

    Attributes:
        refusal: the last.
    """

    def __init__(self, addresses: list[str]) -> None:
        self._waiting = addresses
        self._tried: set[str] = set()
        self.refusal = FleetError(Reason.REGISTRY_UNAVAILABLE, "No registry was named.")

    def __iter__(self) -> Iterator[str]:
        while self._waiting:
            address = self._waiting.pop(0)
            if address not in self._tried:
                self._tried.add(address)
                yield address

    def note(self, error: FleetError) -> None:
        """Notes a registry that does not lead or is away, and asks the leader that it names next.

        Raises:
            FleetError: the same, where another one would say nothing else.
        """
        if error.reason not in _ELSEWHERE:
            raise error
        self.refusal = error
        leader = error.facts.get("leader_address")
        if leader:
            self._waiting.insert(0, leader)
