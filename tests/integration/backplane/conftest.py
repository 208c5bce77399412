"""An authority, and a server that asks for its certificates."""

import pytest

from services.backplane.security.roles import Role
from tests.doubles.guarded_server import Pki, serving


@pytest.fixture
def pki(tmp_path):
    return Pki(tmp_path / "pki")


@pytest.fixture
async def served(pki):
    async with serving(pki.credentials(Role.NEURON, Role.REGISTRY, neuron="beast")) as address:
        yield address
