"""A store of responses per test."""

from collections.abc import Iterator

import pytest

from services.gateway.dialects.openai_responses.store.store import ResponsesStore


@pytest.fixture
def store() -> Iterator[ResponsesStore]:
    """In memory."""
    one = ResponsesStore(None)
    yield one
    one.close()


@pytest.fixture(scope="module")
def shared_store() -> Iterator[ResponsesStore]:
    """For hypothesis, which runs one test many times."""
    one = ResponsesStore(None)
    yield one
    one.close()
