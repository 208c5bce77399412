from __future__ import annotations

import pytest

from services.backplane.settings import Document, SettingsError
from services.registry import settings


def test_defaults_are_those_of_the_design():
    read = settings.read(Document({}, "test"))

    assert read.registry.listen == "127.0.0.1:31315"
    assert read.eviction.strategy == "lru"
    assert read.eviction.defrag_after_cycles == 50
    assert read.neurons == ()


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ({"registry": {"listen": "nowhere"}}, r"registry\.listen: 'nowhere' is not host:port"),
        ({"registry": {"lease_seconds": 0}}, r"registry\.lease_seconds: "),
        ({"registry": {"lisen": "x:1"}}, r"registry: .*unknown field `lisen`"),
        ({"eviction": {"strategy": "random"}}, r"eviction\.strategy: "),
        ({"eviction": {"defrag_after_cycles": -1}}, r"eviction\.defrag_after_cycles: "),
        ({"neurons": [{"name": "a"}]}, r"neurons\[0\]: .*`endpoint`"),
        ({"neurons": [{"name": "a", "endpoint": "a"}]}, r"neurons\[0\]\.endpoint: "),
        (
            {"neurons": [{"name": "a", "endpoint": "a:1"}, {"name": "a", "endpoint": "b:1"}]},
            r"neurons\[1\]\.name: 'a' is there twice",
        ),
    ],
)
def test_every_error_names_source_key_and_reason(tables, complaint):
    with pytest.raises(SettingsError, match=r"test: " + complaint):
        settings.read(Document(tables, "test"))
