import pytest

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.neuron.instances.instances import Instance
from services.neuron.serving.prompt import render


async def test_an_error_that_an_instance_keeps_holds_none_of_its_requests() -> None:
    kept = FleetError(Reason.TEMPLATE_FAILED, "The template is broken.", facts={"line": "3"})
    instance = Instance(instance_id="i", spec=model.LoadSpec(model="m"))
    instance.template_error = kept

    for _ in range(2):
        with pytest.raises(FleetError) as raised:
            await render(instance, conversation.Chat(), generation.Reasoning(), size=0)
        assert (str(raised.value), raised.value.facts) == (str(kept), kept.facts)

    assert kept.__traceback__ is None
