"""A gRPC server as every service runs it: interceptors, health, reflection v1 and v1alpha."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha import reflection_pb2_grpc as reflection_grpc

from services.backplane.address import Address, PortTakenError
from services.backplane.metrics import RpcMetrics
from services.backplane.rpc.audited import RpcAudit
from services.backplane.rpc.channels import SERVER_OPTIONS
from services.backplane.rpc.interceptors import ServerInterceptor
from services.backplane.security.access import OPEN_TO_ALL, Access
from services.backplane.tracing.spans import Tracer

_REFLECTION_V1: Final = "grpc.reflection.v1.ServerReflection"
SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


# the stubs know neither `health.aio` nor List
_aio: Any = health
_messages: Any = health_pb2


class _Health(_aio.aio.HealthServicer):  # type: ignore[misc] # untyped base
    """As grpcio has it, with List (gRFC A90), and names that were taken back unknown again."""

    async def List(self, request: Any, context: Any) -> Any:
        statuses = {
            name: health_pb2.HealthCheckResponse(status=status)
            for name, status in self._server_status.items()
            if status != health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        }
        return _messages.HealthListResponse(statuses=statuses)

    async def Check(self, request: Any, context: Any) -> Any:
        response = await super().Check(request, context)
        if response.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return response


def describe_reflection_v1() -> None:
    """Puts the descriptor of reflection v1, made from v1alpha's, where reflection looks for it."""
    pool = descriptor_pool.Default()
    try:
        pool.FindServiceByName(_REFLECTION_V1)
    except KeyError:
        text = text_format.MessageToString(_file_of(reflection_pb2.DESCRIPTOR))
        text = text.replace("grpc.reflection.v1alpha", "grpc.reflection.v1")
        text = text.replace("grpc/reflection/v1alpha", "grpc/reflection/v1")
        file = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
        file.ClearField("options")  # where v1alpha says that it is superseded
        file.name = "grpc/reflection/v1/reflection.proto"
        pool.Add(file)


def _file_of(descriptor: Any) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto()
    descriptor.CopyToProto(file)
    return file


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """What strangers together may take of a server.

    Attributes:
        calls: under way at a time; more are refused with RESOURCE_EXHAUSTED.
        calls_each: of them on one connection; more wait at their client.
        message_bytes: largest request.
        patience_seconds: within it a handshake ends, and a call's one request comes.
        connection_seconds: a connection is ended after it, so that none is held for ever.
    """

    calls: int
    calls_each: int
    message_bytes: int
    patience_seconds: float
    connection_seconds: float

    @property
    def options(self) -> dict[str, int]:
        """The bounds as channel options of a gRPC server."""
        milliseconds = round(self.connection_seconds * 1000)
        return {
            "grpc.max_receive_message_length": self.message_bytes,
            "grpc.max_connection_age_ms": milliseconds,
            "grpc.max_connection_age_grace_ms": milliseconds,
            "grpc.max_concurrent_streams": self.calls_each,
            "grpc.server_handshake_timeout_ms": round(self.patience_seconds * 1000),
        }


class Server:
    """One listening gRPC server.

    Health answers for the empty name, for each service, and for names that are set later
    (`model/<name>`). Shutting down flips health first, then stops admitting, then waits.
    """

    def __init__(
        self,
        *,
        service_names: Sequence[str],
        metrics: RpcMetrics,
        access: Access = OPEN_TO_ALL,
        bounds: Bounds | None = None,
        audit: RpcAudit | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """Builds it.

        Args:
            service_names: of what it serves, as reflection and health tell them.
            metrics: counts every call.
            access: who may call what.
            bounds: of what all callers together may take; None trusts them.
            audit: tells the audit log of operations; None: there are none here.
            tracer: makes a span of each call whose caller traces it; None traces nothing.
        """
        self._access = access
        self._server = grpc.aio.server(
            interceptors=[
                ServerInterceptor(
                    metrics,
                    self._access,
                    patience_seconds=bounds.patience_seconds if bounds else None,
                    audit=audit,
                    tracer=tracer,
                )
            ],
            options=list({**dict(SERVER_OPTIONS), **(bounds.options if bounds else {})}.items()),
            maximum_concurrent_rpcs=bounds.calls if bounds else None,
        )
        self._health = _Health()
        self._names = tuple(service_names)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        listed = (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME, _REFLECTION_V1)
        describe_reflection_v1()
        servicer = reflection.aio.ReflectionServicer(listed)
        reflection_grpc.add_ServerReflectionServicer_to_server(servicer, self._server)
        # grpcio-reflection has only v1alpha; the messages of v1 are the same under another name.
        v1 = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": v1}),)
        )

    def add(self, register: Callable[[Any, Any], None], servicer: Any) -> None:
        """Registers a servicer with its generated `add_…_to_server` function."""
        register(servicer, self._server)

    async def start(self, listen: Address) -> Address:
        """Starts listening.

        Returns: the address with its real port.

        Raises:
            PortTakenError: somebody else listens there, or it is not ours to listen on.
        """
        try:
            port = self._add_port(listen)
        except RuntimeError as error:
            raise PortTakenError(f"cannot listen on {listen}: the address is in use") from error
        await self._server.start()
        for name in ("", *self._names):
            await self._health.set(name, SERVING)
        return listen if listen.is_unix else Address(listen.host, port)

    def _add_port(self, listen: Address) -> int:
        credentials = self._access.to_serve(listen)
        if credentials is None:
            return self._server.add_insecure_port(str(listen))
        return self._server.add_secure_port(str(listen), credentials)

    async def set_health(self, name: str, *, serving: bool | None) -> None:
        """Sets what health says of a name; None makes it unknown again."""
        if serving is None:
            state = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        else:
            state = SERVING if serving else NOT_SERVING
        await self._health.set(name, state)

    async def stop(self, grace_seconds: float) -> None:
        """Flips health, refuses new calls, waits for running ones, then ends them."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_seconds)
