import msgspec
import pytest

from services.backplane.settings import SettingsError, load


class Timeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    idle_seconds: float = 300.0


class Gateway(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    listen: str = "0.0.0.0:31313"
    workers: int = 1
    keys: tuple[str, ...] = ()
    timeouts: Timeouts = Timeouts()


class Neuron(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    endpoint: str


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "cortex.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_an_absent_section_has_all_defaults(write):
    assert Gateway() == load(write(""), {}).section("gateway", Gateway)


def test_the_environment_overrides_the_file(write):
    path = write('[gateway]\nlisten = "a:1"\nworkers = 2\n')
    environment = {
        "CORTEX_GATEWAY__LISTEN": "b:2",
        "CORTEX_GATEWAY__KEYS": '["k"]',
        "CORTEX_GATEWAY__TIMEOUTS__IDLE_SECONDS": "5",
        "CORTEX_SOMETHING_ELSE": "ignored",
    }

    settings = load(path, environment).section("gateway", Gateway)

    assert Gateway("b:2", 2, ("k",), Timeouts(5.0)) == settings


def test_an_array_of_tables_is_read(write):
    path = write('[[neurons]]\nname = "beast"\nendpoint = "http://beast:13131"\n')

    neurons = load(path, {}).entries("neurons", Neuron)

    assert (Neuron("beast", "http://beast:13131"),) == neurons


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[gateway]\nworkers = 'x'", r"cortex.toml: gateway.workers: Expected `int`"),
        ("[gateway]\nwrokers = 1", r"cortex.toml: gateway: .*unknown field `wrokers`"),
        ("[gateway.timeouts]\nidle_seconds = []", r"gateway.timeouts.idle_seconds: Expected"),
        ("[gatway]\n", r"cortex.toml: gatway: unknown section"),
        ("[gateway\n", r"cortex.toml: not TOML: .*line 1"),
        ("[[neurons]]\nname = 'a'\n", r"cortex.toml: neurons\[0\]: .*required field `endpoint`"),
        (b"\xff\xfe", r"cortex.toml: not UTF-8"),
    ],
)
def test_a_mistake_names_file_key_and_reason(write, text, complaint):
    path = write(text)

    with pytest.raises(SettingsError, match=complaint):
        read_all(path)


def read_all(path):
    document = load(path, {})
    document.section("gateway", Gateway)
    document.entries("neurons", Neuron)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.toml: cannot be read: No such file"):
        load(tmp_path / "none.toml", {})


def test_an_override_below_a_plain_value_names_the_variable(write):
    path = write("[gateway]\nlisten = 'a:1'\n")

    with pytest.raises(SettingsError, match="CORTEX_GATEWAY__LISTEN__PORT: listen: is not a table"):
        load(path, {"CORTEX_GATEWAY__LISTEN__PORT": "1"})
