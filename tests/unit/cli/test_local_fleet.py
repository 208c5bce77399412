import tomllib

import pytest

from services.backplane.settings import load
from services.cli.local_fleet import LocalFleet, default_data_dir
from services.cli.up_settings import choose
from services.gateway import settings as gateway_settings


@pytest.fixture
def make(tmp_path):
    def make(text="", *, host=None, port=None):
        config = tmp_path / "cortex.toml"
        config.write_text(text)
        settings = choose(load(config, {}), tmp_path / "data", host=host, port=port)
        return LocalFleet(
            tmp_path / "data", settings, *gateway_settings.read(settings.document), config
        )

    return make


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        (None, "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
        ("::1", "[::1]"),
        ("10.0.0.7", "10.0.0.7"),
    ],
)
def test_a_fleet_says_where_it_is_reached(make, host, reached):
    fleet = make("[gateway]\ninsecure = true\n", host=host)

    assert f"http://{reached}:31313" == fleet.gateway_url
    assert "127.0.0.1:31315" == fleet.registry_address
    assert "http://127.0.0.1:31314/metrics" == fleet.metrics_url


def test_a_gateway_with_tls_is_reached_with_it(make):
    fleet = make('[gateway]\nmetrics_listen = ""\ntls = { certificate = "c", key = "k" }\n')

    assert ("https://127.0.0.1:31313", "", "") == (
        *(fleet.gateway_url, fleet.metrics_url, fleet.why_not_asked),
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[gateway]\nlisten = "unix:/tmp/g"\n', "Unix socket"),
        ('[gateway.tls]\ncertificate = "c"\nkey = "k"\nclient_ca = "a"\n', "client's certificate"),
    ],
)
def test_a_gateway_that_up_cannot_ask_is_said(make, text, why):
    assert why in make(text).why_not_asked


SECRET = '[[auth.keys]]\nname = "ann"\nkey = "secret"\n'
DIGEST = f'[[auth.keys]]\nname = "bob"\nsha256 = "{"0" * 64}"\n'


@pytest.mark.parametrize(
    ("text", "given", "key"),
    [
        ("", "", ""),
        (DIGEST + SECRET, "", "secret"),
        (SECRET, "mine", "mine"),
        (DIGEST, "", None),
        ("[auth]\nrequired = false\n" + DIGEST, "", ""),
        ("[auth]\nrequired = true\n", "", None),
    ],
)
def test_up_asks_with_a_key_of_the_settings(make, text, given, key):
    assert key == make(text).key(given)


def test_the_catalogue_is_written_once_and_then_yours(make):
    fleet = make()
    catalogue = fleet.data_dir / "models.toml"
    fleet.prepare()
    assert "smollm2-135m" == tomllib.loads(catalogue.read_text())["models"][0]["id"]
    catalogue.write_text("mine")

    fleet.prepare()

    assert "mine" == catalogue.read_text()


def test_no_catalogue_is_written_beside_your_own(make):
    fleet = make('[registry]\nmodels = "/mine.toml"\n[neuron]\nmodels_dirs = ["/mine"]\n')

    fleet.prepare()

    assert ["logs"] == [path.name for path in fleet.data_dir.iterdir()]


def test_data_lies_where_the_desktop_says(tmp_path):
    assert tmp_path / "cortex" == default_data_dir({"XDG_DATA_HOME": str(tmp_path)})
    assert default_data_dir({}).parts[-3:] == (".local", "share", "cortex")
