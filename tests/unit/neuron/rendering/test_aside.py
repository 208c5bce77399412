"""Whose turn it is to look at what is large."""

import threading

import pytest

from services.neuron.rendering.aside import LARGE_BYTES, aside


@pytest.mark.parametrize(("size", "is_aside"), [(LARGE_BYTES, False), (LARGE_BYTES + 1, True)])
async def test_what_is_large_is_looked_at_in_a_thread(size, is_aside):
    assert (await aside(size, threading.get_ident) != threading.get_ident()) is is_aside
