from typing import Annotated

import msgspec
import pytest

from services.backplane.settings import SettingsError, convert, load
from services.backplane.units import IN_SECONDS, Bytes, PositiveBytes, PositiveSeconds, Seconds


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


@pytest.mark.parametrize(
    ("variable", "complaint"),
    [
        (
            "CORTEX_GATWAY__LISTEN",
            r"gatway: unknown section \(did you mean CORTEX_GATEWAY__LISTEN\?",
        ),
        ("CORTEX_ABC__LISTEN", r"abc: unknown section \(known: audit, auth, "),
        ("CORTEX_GATEWAY__", r"names no key"),
        ("CORTEX_GATEWAY__LISTN", r"gateway: .*unknown field `listn`"),
        ("CORTEX_GATEWAY_LISTEN", r"is not read; two underscores .*: CORTEX_GATEWAY__LISTEN"),
    ],
)
def test_a_mistyped_variable_is_an_error_that_names_it(write, variable, complaint):
    with pytest.raises(SettingsError, match=f"^{variable}: {complaint}"):
        load(write("[gateway]\nworkers = 1\n"), {variable: "a:1"}).section("gateway", Gateway)


@pytest.mark.parametrize(
    "variable",
    [
        # Kubernetes sets these where a service is called `cortex-gateway`.
        *("CORTEX_GATEWAY_PORT", "CORTEX_GATEWAY_SERVICE_HOST", "CORTEX_GATEWAY_PORT_1_TCP_ADDR"),
        *("CORTEX_ACP_X__Y", "CORTEX_API_KEY", "CORTEX_REGISTRY_ADDRESS"),
    ],
)
def test_what_is_no_setting_is_left_alone(variable):
    assert Gateway() == load(None, {variable: "x"}).section("gateway", Gateway)


def test_a_document_says_where_a_key_was_set(write):
    document = load(write("[gateway]\nlisten = 'a:1'\n"), {"CORTEX_GATEWAY__WORKERS": "2"})

    assert [document.has(f"gateway.{key}") for key in ("listen", "workers", "keys")] == [
        *(True, True, False)
    ]
    assert document.place("gateway.listen").endswith("cortex.toml: gateway.listen")
    assert document.place("gateway.workers") == "CORTEX_GATEWAY__WORKERS: gateway.workers"


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: Bytes = 0


class Quantities(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: Bytes = 0
    wait: PositiveSeconds = 1.0
    lowest: Annotated[float, IN_SECONDS, msgspec.Meta(ge=0.5)] = 1.0
    most: PositiveBytes | None = None
    steps: tuple[Seconds, ...] = ()
    either: Annotated[int, msgspec.Meta(ge=1)] | Inner = 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size = 7\nwait = 3\nmost = 9", Quantities(size=7, wait=3.0, most=9)),
        ("size = '20GiB'\nmost = '1 kB'", Quantities(size=20 << 30, most=1000)),
        ("wait = '1.5m'\nlowest = '500ms'", Quantities(wait=90.0, lowest=0.5)),
        ("steps = [1, '2s', '1h']", Quantities(steps=(1.0, 2.0, 3600.0))),
        ("either = { size = '1KiB' }", Quantities(either=Inner(1024))),
        ("either = 2", Quantities(either=2)),
    ],
)
def test_a_quantity_is_a_number_or_a_text_with_a_unit(write, text, expected):
    document = load(write(f"[gateway]\n{text}\n"), {})

    assert expected == document.section("gateway", Quantities)


def test_quantities_of_the_environment_are_read_alike():
    environment = {
        "CORTEX_GATEWAY__SIZE": "20GiB",
        "CORTEX_GATEWAY__WAIT": "30s",
        "CORTEX_GATEWAY__LOWEST": "2.5",
        "CORTEX_GATEWAY__MOST": "25769803776",
        "CORTEX_GATEWAY__STEPS": '["1s", 2]',
        "CORTEX_GATEWAY__EITHER__SIZE": "1MB",
    }

    settings = load(None, environment).section("gateway", Quantities)

    assert Quantities(20 << 30, 30.0, 2.5, 24 << 30, (1.0, 2.0), Inner(1_000_000)) == settings


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("size = 'lots'", r"cortex.toml: gateway.size: 'lots' is not a size like"),
        ("size = '3s'", r"cortex.toml: gateway.size: '3s' is not a size"),
        ("size = -1", r"cortex.toml: gateway.size: Expected `int` >= 0"),
        ("wait = 'soon'", r"cortex.toml: gateway.wait: 'soon' is not a duration like"),
        ("wait = '0s'", r"cortex.toml: gateway.wait: Expected `float` > 0"),
        ("lowest = '100ms'", r"cortex.toml: gateway.lowest: Expected `float` >= 0.5"),
        ("most = '0B'", r"cortex.toml: gateway.most: Expected `int` >= 1"),
        ("steps = ['1s', 'x']", r"cortex.toml: gateway.steps\[1\]: 'x' is not a duration"),
        ("either = { size = 'x' }", r"cortex.toml: gateway.either.size: 'x' is not a size"),
    ],
)
def test_a_bad_quantity_names_file_key_and_reason(write, text, complaint):
    document = load(write(f"[gateway]\n{text}\n"), {})

    with pytest.raises(SettingsError, match=f"{complaint}"):
        document.section("gateway", Quantities)


def test_a_bad_override_names_its_variable_and_not_the_file(write):
    path = write("[gateway]\nsize = 1\n")
    document = load(path, {"CORTEX_GATEWAY__WAIT": "soon"})

    with pytest.raises(SettingsError, match=r"^CORTEX_GATEWAY__WAIT: gateway.wait: 'soon' is not"):
        document.section("gateway", Quantities)


def test_where_texts_are_no_numbers_those_with_a_unit_still_are():
    tables = {"size": "1KiB"}

    assert Inner(1024) == convert(tables, Inner, source="models.toml", strict=True)
    with pytest.raises(SettingsError, match=r"^models.toml: size: Expected `int`, got `str`"):
        convert({"size": "12"}, Inner, source="models.toml", strict=True)
