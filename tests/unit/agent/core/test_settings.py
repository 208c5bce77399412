from pathlib import Path

import pytest

from services.agent.core.modes import Mode
from services.agent.core.settings import load_settings
from services.backplane.settings import SettingsError

EXAMPLE = Path(__file__).resolve().parents[4] / "examples/agent.toml"


def load(tmp_path: Path, text: str = "", **environment: str):
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load_settings({"HOME": str(tmp_path), **environment}, path)


def test_without_anything_the_local_gateway_is_asked(tmp_path: Path):
    settings = load_settings({"HOME": str(tmp_path)})

    assert "http://127.0.0.1:31313/v1" == settings.endpoints[0].base_url
    assert Mode.DEFAULT == settings.mode


def test_the_example_loads():
    settings = load_settings({"HOME": "/nonexistent", "OTHER_API_KEY": "k"}, EXAMPLE)

    assert len(settings.endpoints) > 1


def test_the_environment_alone_configures_one_endpoint(tmp_path: Path):
    settings = load_settings(
        {
            "HOME": str(tmp_path),
            "CORTEX_ACP_BASE_URL": "https://x.example/v1",
            "CORTEX_ACP_WIRE_API": "anthropic-messages",
            "CORTEX_ACP_MAX_TOKENS": "100",
            "CORTEX_ACP_MODE": "plan",
        }
    )

    endpoint = settings.endpoints[0]
    assert ("https://x.example/v1", "anthropic-messages", 100) == (
        endpoint.base_url,
        endpoint.wire_api,
        endpoint.max_tokens,
    )
    assert Mode.PLAN == settings.mode


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nonsense = 1", r"config\.toml: .*unknown field `nonsense`"),
        ("bash_seconds = 'soon'", r"config\.toml: bash_seconds: 'soon' is not a duration"),
        ("output_bytes = '1B'", r"config\.toml: output_bytes: Expected `int` >= 1024"),
        ("[[endpoints]]\nidle_seconds = 'x'", r"config\.toml: endpoints\[0\]\.idle_seconds: 'x'"),
        ("[[endpoints]]\nname = 'a:b'", "endpoints"),
        ("[[endpoints]]\nwire_api = 'soap'", "wire_api"),
        ("[[endpoints]]\nmax_tokens = 0", "max_tokens"),
        ("[[endpoints]]\nbase_url = 'localhost'", "base_url"),
        ("[[endpoints]]\n[[endpoints]]", "must differ"),
        ("default_endpoint = 'x'", "default_endpoint"),
        ("endpoints = []", "at least one"),
        ("mode = 'yolo'", "mode"),
        ("[[endpoints]]\napi_key_env = 'NOT_SET_ANYWHERE'", "NOT_SET_ANYWHERE"),
        ("x = ", "config.toml"),
    ],
)
def test_a_wrong_setting_is_fatal_and_named(tmp_path: Path, text: str, complaint: str):
    with pytest.raises(SettingsError, match=complaint):
        load(tmp_path, text)


def test_a_file_that_is_asked_for_must_exist(tmp_path: Path):
    with pytest.raises(SettingsError, match="absent"):
        load_settings({"CORTEX_ACP_CONFIG": str(tmp_path / "absent.toml")})


def test_one_endpoints_variables_do_not_fit_several(tmp_path: Path):
    two = "[[endpoints]]\nname = 'a'\n[[endpoints]]\nname = 'b'"

    with pytest.raises(SettingsError, match="exactly one endpoint"):
        load(tmp_path, two, CORTEX_ACP_MODEL="m")


def test_keys_come_from_the_environment_and_stay_out_of_sight(tmp_path: Path):
    text = "[[endpoints]]\napi_key_env = 'K'\nheaders = {x = 'secret-2'}"
    settings = load(tmp_path, text, K="secret-1")

    assert "secret-1" == settings.endpoints[0].api_key
    assert "secret" not in repr(settings)


def test_sizes_and_durations_have_units(tmp_path: Path):
    settings = load(
        tmp_path,
        "bash_seconds = '10m'\noutput_bytes = '64KiB'\n[[endpoints]]\nidle_seconds = '90s'\n",
    )

    assert (600.0, 65536) == (settings.bash_seconds, settings.output_bytes)
    assert 90.0 == settings.endpoints[0].idle_seconds


def test_a_wrong_variable_is_named(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"^CORTEX_ACP_MAX_ROUNDS: max_rounds: Expected"):
        load(tmp_path, CORTEX_ACP_MAX_ROUNDS="0")
    with pytest.raises(SettingsError, match=r"^CORTEX_ACP_MAX_TOKENS: endpoints\[0\].max_tokens: "):
        load(tmp_path, CORTEX_ACP_MAX_TOKENS="0")
