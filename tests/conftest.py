"""What every test owes the others: logging is as it was, and no case is timed by the wall clock."""

import importlib.util
import os

import pytest
import structlog

# xdist sets it in its processes, and commands would take that for the reader's wish.
os.environ.pop("COLUMNS", None)


# The GPU engine's environment has no Hypothesis, and no test that needs it.
if importlib.util.find_spec("hypothesis") is not None:
    import hypothesis

    # By default a case that takes 200 ms fails; on a busy machine any case may, by chance.
    hypothesis.settings.register_profile("no deadline", deadline=None)
    hypothesis.settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def own_logging():
    """Services configure logging for their process; here the process is everybody's."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
