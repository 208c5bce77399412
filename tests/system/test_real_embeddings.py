"""A real embedding model, fetched, converted and served by a fleet that `cortex up` started."""

from __future__ import annotations

import base64
import struct

import openai
import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

MODEL = "all-minilm-l6-v2"


@pytest.fixture
def client(real_fleet):
    with openai.OpenAI(
        base_url=f"{real_fleet.url}/v1", api_key="none", max_retries=0, timeout=240
    ) as client:
        yield client


def cosine(left, right):
    return sum(a * b for a, b in zip(left, right, strict=True))


def vectors(client, texts, **arguments):
    answer = client.embeddings.create(
        model=MODEL, input=texts, encoding_format="float", **arguments
    )
    assert [each.index for each in answer.data] == list(range(len(answer.data)))
    return [each.embedding for each in answer.data]


def test_meaning_is_near_and_far(client):
    cat, feline, stocks = vectors(client, ["cat", "feline", "stocks"])

    assert len(cat) == 384
    assert cosine(cat, cat) == pytest.approx(1, abs=1e-4)
    # What the author's weights give in exact arithmetic.
    assert cosine(cat, feline) == pytest.approx(0.6975, abs=0.005)
    assert cosine(cat, stocks) == pytest.approx(0.2028, abs=0.005)


def test_a_text_has_one_vector_alone_in_company_and_packed(client):
    texts = ["A cat sleeps on the warm roof.", "Stocks fell.", "naïve café", "x" * 40]

    together = vectors(client, texts)

    for text, vector in zip(texts, together, strict=True):
        (alone,) = vectors(client, text)
        assert cosine(alone, vector) > 0.9999
    raw = client.embeddings.with_raw_response.create(
        model=MODEL, input=texts, encoding_format="base64"
    )
    for each, vector in zip(raw.http_response.json()["data"], together, strict=True):
        packed = struct.unpack("<384f", base64.b64decode(each["embedding"]))
        assert packed == pytest.approx(vector, abs=1e-5)


def test_fewer_dimensions_have_length_one_too(client):
    (short,) = vectors(client, "cat", dimensions=128)

    assert len(short) == 128
    assert cosine(short, short) == pytest.approx(1, abs=1e-4)


def test_a_text_that_is_too_long_is_the_callers_mistake(client):
    with pytest.raises(openai.BadRequestError, match="512"):
        vectors(client, "cat " * 600)


def test_it_does_not_chat(client):
    with pytest.raises(openai.BadRequestError, match="vectors"):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}])
