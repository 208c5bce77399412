from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from services.neuron.engines.exllamav2.model.sizing import Shape
from services.neuron.engines.exllamav2.parallel.channel import Channel, ClosedError
from services.neuron.engines.exllamav2.parallel.messages import (
    ORDERS,
    REPLIES,
    Begin,
    Order,
    RankAnswer,
    Reply,
    RunForward,
)

SHAPE = Shape(1024, 1024, 4, 4096, 1024, 0, "fp16")


@pytest.fixture
def ends() -> Iterator[tuple[Channel[Reply], Channel[Order]]]:
    left, right = socket.socketpair()
    channels = Channel(left, REPLIES), Channel(right, ORDERS)
    yield channels
    for channel in channels:
        channel.close()


def test_orders_arrive_whole_and_in_order(ends):
    leader, follower = ends
    orders = [Begin("i", "/m", SHAPE), RunForward("i", 1, 2, b"\0" * 16, b"\0" * 4, b"\0" * 4, 2)]

    leader.send(*orders)
    follower.send(RankAnswer(7))

    assert [follower.receive(), follower.receive()] == orders
    assert leader.receive(seconds=1) == RankAnswer(7)


def test_nothing_comes_in_time(ends):
    assert ends[0].receive(seconds=0.01) is None


def test_the_other_side_is_gone(ends):
    leader, follower = ends
    follower.close()

    with pytest.raises(ClosedError, match="it is gone"):
        leader.receive(seconds=1)
    with pytest.raises(ClosedError, match="nothing can be sent"):
        leader.send(RankAnswer())


@pytest.mark.parametrize("data", [b"\x05\0\0\0abc", b"\xff\xff\xff\xff", b"\x01\0\0\0\xc1"])
def test_what_is_no_message_closes(data):
    left, right = socket.socketpair()
    with left, right:
        right.sendall(data)
        right.shutdown(socket.SHUT_WR)

        with pytest.raises(ClosedError):
            Channel(left, REPLIES).receive(seconds=1)
