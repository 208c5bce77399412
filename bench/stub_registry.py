"""`python -m bench.stub_registry --listen … --neuron …`: a fleet of one mock neuron.

The mock attaches to nothing, and a benchmark should not measure a registry. This is a real
RegistryService whose fleet never changes: one neuron, one READY instance of model `bench`.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Sequence

import grpc

from cortex.v1 import model_pb2, neuron_service_pb2, registry_service_pb2, registry_service_pb2_grpc

MODEL = "bench"
INSTANCE = "bench-0"  # as bench/native/mock_grpc.c has it
NEURON = "mock"
_CONTEXT_TOKENS = 1 << 20
_SEQUENCES = 1 << 16
_PROGRESS_SECONDS = 5.0

_Context = grpc.aio.ServicerContext[
    registry_service_pb2.WatchFleetRequest, registry_service_pb2.WatchFleetResponse
]


def _instance() -> model_pb2.Instance:
    return model_pb2.Instance(
        instance_id=INSTANCE,
        spec=model_pb2.LoadSpec(model=MODEL),
        state=model_pb2.INSTANCE_STATE_READY,
        max_active_requests=_SEQUENCES,
        max_queued_requests=_SEQUENCES,
        max_context_tokens=_CONTEXT_TOKENS,
        capabilities=[model_pb2.CAPABILITY_CHAT, model_pb2.CAPABILITY_COMPLETION],
        engine="mock",
    )


def _snapshot(neuron_address: str) -> registry_service_pb2.FleetSnapshot:
    neuron = registry_service_pb2.Neuron(
        identity=neuron_service_pb2.NeuronIdentity(
            name=NEURON,
            incarnation_id="1",
            address=neuron_address,
            version="0",
            engines=["mock"],
            features=["resume"],  # it tells its tokens, as every neuron does
        ),
        report=neuron_service_pb2.NeuronReport(sequence=1, instances=[_instance()]),
    )
    model = registry_service_pb2.CatalogueModel(
        model=MODEL,
        capabilities=[model_pb2.CAPABILITY_CHAT],
        max_context_tokens=_CONTEXT_TOKENS,
        feasible_neurons=[NEURON],
        configured=True,
    )
    catalogue = registry_service_pb2.CatalogueView(config_revision=1, models=[model])
    return registry_service_pb2.FleetSnapshot(neurons=[neuron], catalogue=catalogue)


class StubRegistry(registry_service_pb2_grpc.RegistryServiceServicer):
    """Says the same to everybody, for ever."""

    def __init__(self, neuron_address: str) -> None:
        self._address = neuron_address

    async def Attach(
        self,
        request_iterator: AsyncIterator[registry_service_pb2.AttachRequest],
        context: grpc.aio.ServicerContext[
            registry_service_pb2.AttachRequest, registry_service_pb2.AttachResponse
        ],
    ) -> AsyncIterator[registry_service_pb2.AttachResponse]:
        """Nobody joins this fleet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the bench's fleet is fixed")
        yield registry_service_pb2.AttachResponse()  # makes this a generator; never reached

    async def WatchFleet(
        self, request: registry_service_pb2.WatchFleetRequest, context: _Context
    ) -> AsyncIterator[registry_service_pb2.WatchFleetResponse]:
        """One snapshot, and then signs of life."""
        yield registry_service_pb2.WatchFleetResponse(
            revision=1, registry_incarnation_id="bench", snapshot=_snapshot(self._address)
        )
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            yield registry_service_pb2.WatchFleetResponse(
                revision=1,
                registry_incarnation_id="bench",
                progress=registry_service_pb2.WatchProgress(),
            )

    async def RenewCertificate(
        self,
        request: registry_service_pb2.RenewCertificateRequest,
        context: grpc.aio.ServicerContext[
            registry_service_pb2.RenewCertificateRequest,
            registry_service_pb2.RenewCertificateResponse,
        ],
    ) -> registry_service_pb2.RenewCertificateResponse:
        """Nobody has a certificate in this fleet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the bench's fleet is fixed")
        raise AssertionError  # abort has raised

    async def EnsureModel(
        self,
        request: registry_service_pb2.EnsureModelRequest,
        context: grpc.aio.ServicerContext[
            registry_service_pb2.EnsureModelRequest, registry_service_pb2.EnsureModelResponse
        ],
    ) -> AsyncIterator[registry_service_pb2.EnsureModelResponse]:
        """The one model is where it always is; no other can be placed."""
        if request.model != MODEL:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"the bench has only {MODEL!r}")
        placed = registry_service_pb2.Placement(
            neuron=NEURON, address=self._address, instance_id=INSTANCE, model=MODEL
        )
        yield registry_service_pb2.EnsureModelResponse(placed=placed)


async def serve(listen: str, neuron_address: str) -> None:
    """Serves until it is cancelled."""
    server = grpc.aio.server()
    registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(
        StubRegistry(neuron_address), server
    )
    server.add_insecure_port(listen)
    await server.start()
    try:
        await server.wait_for_termination()
    finally:
        await server.stop(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, help="host:port of the registry")
    parser.add_argument("--neuron", required=True, help="host:port of the mock's gRPC side")
    options = parser.parse_args(arguments)
    asyncio.run(serve(options.listen, options.neuron))


if __name__ == "__main__":
    main()
