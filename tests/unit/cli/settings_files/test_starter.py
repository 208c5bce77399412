import re
import tomllib

import pytest

from services.backplane.settings import Document
from services.cli.settings_files.check import problems, services_of
from services.cli.settings_files.starter import Answers, ClientKey, HostPart, files

_KEY = re.compile(r"^# ([a-z_0-9]+ = |\[)")


def wrong(text):
    tables = tomllib.loads(text)
    tables.get("registry", {}).pop("models", None)
    document = Document(tables, "new.toml")
    return list(problems(document, services_of(document)))


def texts(part, **said):
    found = files(Answers(part, folder="/etc/cortex", **said))
    return {name: text for name, text in found.items() if name != "models.toml"}


@pytest.mark.parametrize("part", list(HostPart))
def test_new_files_are_accepted_as_they_are_and_with_every_comment_in_force(part):
    for text in texts(part).values():
        whole = "\n".join(
            line.removeprefix("# ")
            if _KEY.match(line) and "explained in" not in line and '= ""' not in line
            else line
            for line in text.splitlines()
        )

        assert [] == wrong(text) == wrong(whole)
        assert len(tomllib.loads(whole)["log"]) == 2 > len(tomllib.loads(text)["log"])


@pytest.mark.parametrize(
    ("part", "names"),
    [
        (HostPart.ALL_IN_ONE, {"cortex.toml", "models.toml", "neuron.toml"}),
        (HostPart.GATEWAY, {"cortex.toml"}),
        (HostPart.REGISTRY, {"cortex.toml", "models.toml"}),
        (HostPart.NEURON, {"neuron.toml"}),
    ],
)
def test_a_part_has_its_files(part, names):
    assert names == set(files(Answers(part, folder="/x")))


def test_what_was_said_stands_in_the_files():
    said = {"listen": "10.0.0.1:1", "registries": ["r:2"], "neuron": "beast", "models_dir": "/m"}

    neuron = tomllib.loads(texts(HostPart.NEURON, **said)["neuron.toml"])["neuron"]
    both = texts(HostPart.ALL_IN_ONE, **said)

    assert {
        "name": "beast",
        "listen": "10.0.0.1:1",
        "registry": ["r:2"],
        "models_dirs": ["/m"],
    } == neuron
    # a neuron beside the gateway listens where it always does
    assert "listen" not in tomllib.loads(both["neuron.toml"])["neuron"]
    assert "10.0.0.1:1" == tomllib.loads(both["cortex.toml"])["gateway"]["listen"]


def test_a_key_stands_in_the_file_by_its_digest_alone():
    key = ClientKey.new("ann")

    text = files(Answers(HostPart.GATEWAY, folder="/x", listen="0.0.0.0:1"), key)["cortex.toml"]

    assert key.secret not in text
    assert [] == wrong(text)
    assert "ann" == tomllib.loads(text)["auth"]["keys"][0]["name"]
