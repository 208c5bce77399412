"""instructor, over its modes."""

import anthropic
import instructor
import openai
from instructor import Mode
from pydantic import BaseModel, ConfigDict

from services.cli.sdk_checks.suite import Suite

suite = Suite("instructor", package="instructor")
ASK = [{"role": "user", "content": "Add 1 and 2."}]


class Sum(BaseModel):
    """Two numbers."""

    model_config = ConfigDict(extra="forbid")
    a: int
    b: int


def openai_client(target):
    return openai.OpenAI(base_url=f"{target.url}/v1", api_key="none", max_retries=0)


@suite.check("structured output")
def openai_modes(target):
    for mode in (Mode.TOOLS, Mode.TOOLS_STRICT, Mode.JSON_SCHEMA, Mode.JSON):
        client = instructor.from_openai(openai_client(target), mode=mode)
        model = target.scripted if mode is Mode.JSON else target.model
        answer = client.chat.completions.create(
            model=model,
            messages=ASK,
            response_model=Sum if mode is not Mode.JSON else Hello,
            temperature=0,
            max_retries=1,
        )
        assert isinstance(answer, BaseModel), mode


@suite.check("structured output")
def responses_tools(target):
    client = instructor.from_openai(openai_client(target), mode=Mode.RESPONSES_TOOLS)
    answer = client.responses.create(
        model=target.model, input=ASK, response_model=Sum, temperature=0, max_retries=1
    )
    assert isinstance(answer, Sum)


@suite.check("structured output")
def anthropic_tools(target):
    client = instructor.from_anthropic(
        anthropic.Anthropic(base_url=target.url, api_key="none"), mode=Mode.ANTHROPIC_TOOLS
    )
    answer = client.chat.completions.create(
        model=target.model, messages=ASK, response_model=Sum, max_tokens=600, max_retries=1
    )
    assert isinstance(answer, Sum)


@suite.check("stream")
def partial(target):
    client = instructor.from_openai(openai_client(target), mode=Mode.TOOLS)
    parts = list(
        client.chat.completions.create_partial(
            model=target.model, messages=ASK, response_model=Sum, temperature=0
        )
    )
    assert isinstance(parts[-1].a, int)


class Hello(BaseModel):
    """What the scripted neuron says where any JSON object will do."""

    hello: str


if __name__ == "__main__":
    suite.main()
