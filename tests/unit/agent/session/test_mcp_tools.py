import re

from services.agent.session.mcp_tools import tool_name


def test_a_name_is_as_it_was_where_every_endpoint_takes_it():
    assert "mcp__weather__forecast" == tool_name("weather", "forecast")
    assert "mcp__my-server__get__one" == tool_name("my-server", "get__one")


def test_no_two_tools_have_one_name_and_every_endpoint_takes_it():
    pairs = [
        ("a", "x.y"), ("a", "x_y"), ("a", "x/y"), ("a.b", "c"), ("a b", "c"), ("a_b", "c"),
        ("a", "b__c"), ("a__b", "c"), ("a_", "b"), ("a", "_b"), ("天気", "予報"), ("気天", "予報"),
        ("s", "t" * 90 + "1"), ("s", "t" * 90 + "2"), ("s" * 90, "one"), ("s" * 90, "two"), ("", ""),
    ]  # fmt: skip
    names = [tool_name(*pair) for pair in pairs]

    assert len(pairs) == len(set(names))
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in names)
