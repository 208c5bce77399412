"""What every test owes the others: logging is as it was."""

import pytest
import structlog


@pytest.fixture(autouse=True)
def own_logging():
    """Services configure logging for their process; here the process is everybody's."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
