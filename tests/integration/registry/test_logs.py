"""A registry that crashes in a call says where, and nothing of what it was given."""

from __future__ import annotations

import grpc
import pytest

from cortex.v1 import registry_service_pb2, registry_service_pb2_grpc
from services.backplane.rpc.channels import open_channel
from services.registry.control.control_plane import ControlPlane
from tests.doubles.planted import KEY, PROMPT, assert_crash_tells_nothing, crash, logged
from tests.doubles.registry_stand_ins import document, running_fleet


@pytest.mark.parametrize("form", ["json", "console"])
async def test_a_crash_tells_nothing_of_the_call(tmp_path, form, monkeypatch, capfd):
    monkeypatch.setattr(ControlPlane, "ensure", crash)
    request = registry_service_pb2.EnsureModelRequest(model=PROMPT, principal=KEY)

    async with running_fleet(document(tmp_path)) as fleet:
        channel = open_channel(fleet.address)
        stub = registry_service_pb2_grpc.RegistryServiceStub(channel)
        with logged(form, "registry") as log, pytest.raises(grpc.aio.AioRpcError):
            async for _ in stub.EnsureModel(request):
                pass
        await channel.close()

    assert_crash_tells_nothing(log.getvalue() + "".join(capfd.readouterr()))
