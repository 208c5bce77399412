from __future__ import annotations

import pathlib

import pytest

from services.backplane.settings import SettingsError
from services.registry.catalogue import catalogue

ROOT = pathlib.Path(__file__).parents[4]


def read(tmp_path: pathlib.Path, text: str) -> catalogue.Catalogue:
    path = tmp_path / "models.toml"
    path.write_text(text)
    return catalogue.load(path)


def test_every_key_arrives_in_the_profile(tmp_path):
    models = read(
        tmp_path,
        """
[[models]]
id = "m"
source = "hf:a/b@c"
engine = "exllamav2"
quant = "4.0bpw"
memory = "20GiB"
devices = { count = 2, max = 4, memory = "12GiB" }
parallel = "tensor"
context = 32768
cache_format = "q8"
neurons = ["beast"]
labels = { tier = "gpu" }
affinity = { zone = "cellar" }
exclusive = "big"
anti_affinity = { required = ["n"] }
class = 200
idle_timeout = "10m"
replicas = { min = 1, max = 3 }
aliases = ["x"]
limits = { output = 4096, wait = "2m", sequences = 8 }
price = { input = 0.0, output = 0.6 }
capabilities = ["chat", "tools"]
preload = true
[[models]]
id = "n"
exclusive = "big"
anti_affinity = { preferred = ["m"] }
[aliases]
y = "m"
""",
    )

    m = models.profiles["m"]

    assert (m.terms.source, m.terms.engine, m.terms.quant) == ("hf:a/b@c", "exllamav2", "4.0bpw")
    assert (m.memory_bytes, m.device_memory_bytes) == (20 << 30, 12 << 30)
    assert (m.devices, m.max_devices, m.device_kind) == (2, 4, "cuda")
    assert (m.terms.parallel, m.is_divided) == ("tensor", True)
    assert (m.terms.max_context_tokens, m.terms.cache_format, m.terms.max_sequences) == (
        32768,
        "q8",
        8,
    )
    assert (m.neurons, dict(m.labels), dict(m.affinity)) == (
        ("beast",),
        {"tier": "gpu"},
        {"zone": "cellar"},
    )
    assert (m.exclusive_group, m.exclusive_with, m.apart_from) == ("big", ("n",), ("n",))
    assert (m.residency_class, m.idle_timeout_seconds) == (200, 600.0)
    assert (m.min_replicas, m.max_replicas, m.preload) == (1, 3, True)
    assert m.aliases == ("x", "y")
    assert (m.max_output_tokens, m.max_wait_seconds) == (4096, 120.0)
    assert m.price is not None
    assert (m.price.input, m.price.output, m.price.cache_read) == (0.0, 0.6, None)
    assert models.resolve("y") == "m"
    assert models.resolve("unmapped") == "unmapped"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[[models]]\nid = ""\n', r"models\[0\]\.id: "),
        ("[[models]]\n", r"models\[0\]: .*missing required field `id`"),
        ('[[models]]\nid = "a"\nvram_mb = 3\n', r"models\[0\]: .*unknown field `vram_mb`"),
        ('[[models]]\nid = "a"\nmemory = "lots"\n', r"models\[0\]\.memory: 'lots' is not a size"),
        ('[[models]]\nid = "a"\nidle_timeout = "soon"\n', r"idle_timeout: 'soon' is not"),
        ('[[models]]\nid = "a"\nsource = "/x"\n', r"source: '/x' starts with none of"),
        ('[[models]]\nid = "a"\ndevices = 0\n', r"models\[0\]\.devices: "),
        ('[[models]]\nid = "a"\ndevices = { count = 3, max = 2 }\n', r"devices\.max: 2 is less"),
        ('[[models]]\nid = "a"\nreplicas = { min = 3, max = 2 }\n', r"replicas\.max: 2 is less"),
        ('[[models]]\nid = "a"\ncapabilities = ["fly"]\n', r"models\[0\]\.capabilities\[0\]: "),
        ('[[models]]\nid = "a"\n[[models]]\nid = "a"\n', r"models\[1\]\.id: 'a' is there twice"),
        ('[[models]]\nid = "a"\nsampling = { top_p = 0 }\n', r"models\[0\]\.sampling\.top_p: "),
        ('[[models]]\nid = "a"\nsampling = { heat = 1 }\n', r"sampling: .*unknown field `heat`"),
        ('[[models]]\nid = "a"\nparallel = "tensor"\n', r"devices: it is 1, and parallel"),
        (
            '[[models]]\nid = "a"\nparallel = "auto"\nengine = "llamacpp"\n',
            r"parallel: is for ExLlamaV2",
        ),
        ('[aliases]\nx = "gone"\n', r"aliases\.x: 'gone' is no model"),
        (
            '[[models]]\nid = "a"\naliases = ["b"]\n[[models]]\nid = "b"\n',
            r"alias 'b' is a model's own id",
        ),
        (
            '[[models]]\nid = "a"\naliases = ["x"]\n[[models]]\nid = "b"\naliases = ["x"]\n',
            r"alias 'x' already means 'a'",
        ),
        (
            '[[models]]\nid = "a"\n[aliases.x]\nmodel = "a"\nfallback = "gone"\n',
            r"aliases\.x\.fallback: 'gone' is no model",
        ),
        ('[[models]]\nid = "a"\n[aliases.x]\nstrip = []\n', r"missing required field `model`"),
        (
            '[[models]]\nid = "a"\n[aliases.x]\nmodel = "a"\nstrip = ["messages"]\n',
            r"aliases\.x\.strip\[0\]: Invalid enum value 'messages'",
        ),
        *(
            (
                '[[models]]\nid = "a"\naliases = ["y"]\n'
                f'[aliases.x]\nmodel = "a"\nfallback = "{itself}"\n',
                rf"aliases\.x\.fallback: '{itself}' is the model that cannot be served then",
            )
            for itself in ("a", "x", "y")
        ),
        (
            '[[models]]\nid = "a"\n[aliases.x]\nmodel = "a"\nforce = { max_tokens = 99999999999 }\n',
            r"aliases\.x\.force\.max_tokens: Expected `int` <= 2147483647",
        ),
        ('[[models]]\nid = "a"\ncontext = 99999999999\n', r"models\[0\]\.context: .*<= 2147483647"),
        ('[[models]]\nid = "a"\n[aliases]\n"" = "a"\n', r"aliases\.: .*length >= 1"),
        ('[[models]]\nid = "a"\n[aliases]\nb = 5\n', r"aliases\.b: Expected `str \| object`"),
        (
            '[[models]]\nid = "a"\nanti_affinity = { required = ["a"] }\n',
            r"models 'a'\.anti_affinity\.required: 'a' is the model itself; its instances are on",
        ),
        (
            '[[models]]\nid = "a"\nanti_affinity = { preferred = ["gone"] }\n',
            r"models 'a'\.anti_affinity\.preferred: 'gone' is no model of this catalogue",
        ),
        ("[modles]\n", r"modles: unknown section"),
        ("[[models]\n", r"not TOML"),
    ],
)
def test_every_error_names_file_key_and_reason(tmp_path, text, complaint):
    with pytest.raises(SettingsError, match=complaint) as refused:
        read(tmp_path, text)

    assert str(refused.value).startswith(str(tmp_path / "models.toml"))


def test_a_missing_file_is_an_error_not_an_empty_catalogue(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        catalogue.load(tmp_path / "nowhere.toml")


def test_a_revision_is_of_what_is_loaded_and_nothing_else(tmp_path):
    base = '[[models]]\nid = "a"\nsource = "path:/a"\n'
    before = read(tmp_path, base).profiles["a"].revision

    assert read(tmp_path, base).profiles["a"].revision == before
    assert read(tmp_path, base + "price = { input = 1.0 }\n").profiles["a"].revision == before
    assert read(tmp_path, base + "context = 512\n").profiles["a"].revision != before
    for needs_no_load in (
        "[models.sampling]\ntemperature = 0.2\n",
        "limits = { output = 9, wait = 5, sequences = 3 }\n",
        'aliases = ["b"]\n',
        'description = "words"\n',
    ):
        assert read(tmp_path, base + needs_no_load).profiles["a"].revision == before


def test_a_difference_names_what_was_added_removed_and_changed(tmp_path):
    old = read(tmp_path, '[[models]]\nid = "a"\n[[models]]\nid = "b"\n')
    new = read(tmp_path, '[[models]]\nid = "a"\nclass = 5\n[[models]]\nid = "c"\n')

    assert catalogue.difference(old, new) == catalogue.Difference(("c",), ("b",), ("a",))
    assert catalogue.difference(old, old) == catalogue.Difference((), (), ())
    assert old.revision != new.revision


def test_the_example_is_a_catalogue():
    models = catalogue.load(ROOT / "examples" / "models.toml")

    assert "smollm2-135m" in models.profiles
    assert models.resolve("code") == "coder-32b"


def test_an_alias_may_have_rules_and_another_model_to_fall_back_to(tmp_path):
    models = read(
        tmp_path,
        """
[[models]]
id = "a"
[[models]]
id = "b"
[aliases]
plain = "a"
[aliases.same]
model = "a"
[aliases.careful]
model = "a"
system = "Be brief."
default = { max_tokens = 9, sampling = { temperature = 0.2 } }
force = { reasoning = false }
strip = ["seed"]
fallback = "b"
""",
    )

    a = models.profiles["a"]

    assert ("careful", "plain", "same") == a.aliases
    assert models.profiles["b"].alias_rules == ()
    (rules,) = a.alias_rules
    assert ("careful", "Be brief.", ("seed",), "b") == (
        rules.alias,
        rules.system,
        rules.strip,
        rules.fallback,
    )
    assert (9, 0.2) == (rules.default.max_tokens, rules.default.sampling.temperature)
    assert (False, None) == (rules.force.reasoning, rules.default.reasoning)
