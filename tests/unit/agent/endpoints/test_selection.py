import pytest

from services.agent.core.settings import AgentSettings, EndpointSettings
from services.agent.endpoints.endpoint import EndpointError, EndpointModel
from services.agent.endpoints.selection import Endpoints, UnknownModelError


class Listing:
    """An endpoint that lists models, or fails to."""

    def __init__(self, settings: EndpointSettings) -> None:
        self.name = settings.name
        self.asked = 0

    async def models(self) -> list[EndpointModel]:
        self.asked += 1
        if self.name == "down":
            raise EndpointError("refused")
        return [
            EndpointModel("vectors", can_chat=False),
            EndpointModel(f"{self.name}-1", 1000, can_see=False),
            EndpointModel("b:c", aliases=("nick",)),
            EndpointModel("tagged:latest"),
        ]


def endpoints(*names: str, model: str = "", window: int | None = None) -> Endpoints:
    settings = AgentSettings(
        endpoints=tuple(
            EndpointSettings(name=name, model=model, context_window=window) for name in names
        )
    )
    return Endpoints(settings, connect=Listing, clock=lambda: 0.0)  # type: ignore[arg-type]


async def test_a_failing_endpoint_does_not_hide_the_others():
    assert ["a:a-1", "a:b:c", "a:tagged:latest"] == await endpoints("down", "a").selectors()


async def test_selectors():
    both = endpoints("a", "z")

    assert ("a", "a-1") == both_names(both, "a:a-1")
    assert ("z", "b:c") == both_names(both, "z:b:c")
    assert ("a", "llama3:8b") == both_names(both, "llama3:8b")
    assert ("a", "plain") == both_names(both, "plain")
    assert "a:a-1" == await both.default()
    assert "a:fixed" == await endpoints("a", model="fixed").default()
    selection = await both.select("")
    assert ("a:a-1", 1000) == (selection.selector, selection.context_window)
    assert selection.can_see is False
    assert (await both.select("a:unlisted")).context_window is None
    assert 5 == (await endpoints("a", window=5).select("a:a-1")).context_window


def both_names(these: Endpoints, selector: str) -> tuple[str, str]:
    settings, model = these.settings_of(selector)
    return settings.name, model


async def test_pictures_are_taken_where_it_is_not_known_that_no_model_sees():
    assert await endpoints("a").can_see(), "of b:c it is not known"
    assert await endpoints("down").can_see()


async def test_a_model_that_an_endpoint_does_not_list_is_refused_by_name():
    both = endpoints("a", "down")

    assert "a:a-1" == await both.checked("a-1")
    assert "a:b:c" == await both.checked("a:b:c")
    assert "a:nick" == await both.checked("nick")
    assert "a:tagged" == await both.checked("a:tagged")
    assert "down:anything" == await both.checked("down:anything")
    assert "a:fixed" == await endpoints("a", model="fixed").checked("a:fixed")
    for wrong in ("a:vectors", "other", ""):
        with pytest.raises(UnknownModelError):
            await both.checked(wrong)


async def test_no_model_anywhere_is_said_with_the_address():
    with pytest.raises(UnknownModelError, match=r"down \(http"):
        await endpoints("down").select("")
