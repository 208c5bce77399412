"""Bad input gets its own clear error: the right status, the dialect's envelope, the field named."""

import http.client
import json
import os
import subprocess
import sys
import urllib.parse

import pytest

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
def post(scripted_fleet):
    where = urllib.parse.urlsplit(scripted_fleet.url)

    def post(path, body, method="POST", headers=None):
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=30)
        try:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent = {"content-type": "application/json", **(headers or {})}
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    return post


BAD = {
    "malformed JSON": (b'{"model": "alpha", ', 400, ""),
    "not an object": (b"[]", 400, ""),
    "broken UTF-8": (b'{"model": "al\xffpha", "messages": []}', 400, ""),
    "no model": ({"messages": HI, "max_tokens": 5}, 400, "model"),
    "model of the wrong type": ({"model": 5, "messages": HI, "max_tokens": 5}, 400, "model"),
    "unknown model": ({"model": "nope", "messages": HI, "max_tokens": 5}, 404, "nope"),
    "empty messages": ({"model": "alpha", "messages": [], "max_tokens": 5}, 400, "messages"),
    "messages of the wrong type": (
        {"model": "alpha", "messages": 5, "max_tokens": 5},
        400,
        "messages",
    ),
    "an unknown role": (
        {"model": "alpha", "messages": [{"role": "king", "content": "x"}], "max_tokens": 5},
        400,
        "messages",
    ),
    "temperature of the wrong type": (
        {"model": "alpha", "messages": HI, "max_tokens": 5, "temperature": "hot"},
        400,
        "temperature",
    ),
    "temperature out of range": (
        {"model": "alpha", "messages": HI, "max_tokens": 5, "temperature": -1},
        400,
        "temperature",
    ),
    "too long a prompt": (
        {
            "model": "alpha",
            "messages": [{"role": "user", "content": "word " * 30000}],
            "max_tokens": 5,
        },
        400,
        "tokens",
    ),
}


@pytest.mark.parametrize("case", BAD, ids=list(BAD))
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_bad_input_is_refused_in_the_dialects_own_words(post, case, path, stream):
    body, status, named = BAD[case]
    if isinstance(body, dict):
        body = {**body, "stream": stream}

    got, answer = post(path, body)

    assert status == got, answer
    error = answer["error"]
    assert named in error["message"] + str(error.get("param"))
    assert "Traceback" not in error["message"]
    if path == MESSAGES:
        assert "error" == answer["type"]
        assert error["type"] in {"invalid_request_error", "not_found_error"}
    else:
        assert {"message", "type", "param", "code"} <= set(error)


def test_an_overflow_has_the_code_and_words_that_clients_read(post):
    body, _, _ = BAD["too long a prompt"]

    _, chat = post(CHAT, body)
    _, messages = post(MESSAGES, body)

    assert "context_length_exceeded" == chat["error"]["code"]
    assert "maximum context length is" in chat["error"]["message"]
    assert "prompt is too long" in messages["error"]["message"]


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_an_unknown_sampling_field_is_refused_by_name(post, path):
    status, answer = post(path, {"model": "alpha", "messages": HI, "max_tokens": 5, "top_q": 0.5})

    assert 400 == status
    assert "top_q" in answer["error"]["message"]


def test_a_body_over_the_limit_is_refused(post):
    huge = b'{"model": "alpha", "messages": [{"role": "user", "content": "' + b"x" * (65 << 20)

    status, answer = post(CHAT, huge)

    assert 413 == status
    assert "message" in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", CHAT, 405), ("POST", "/v1/nothing", 404)]
)
def test_the_framework_answers_in_an_envelope_too(post, method, path, status):
    got, answer = post(path, {}, method=method)

    assert status == got
    assert answer["error"]["message"]


def run_cortex(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        **options,
    )


def test_a_taken_port_is_named(scripted_fleet, tmp_path):
    port = urllib.parse.urlsplit(scripted_fleet.url).port

    done = run_cortex("up", "--port", str(port), "--data-dir", str(tmp_path))

    assert 69 == done.returncode
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("service", ["gateway", "registry", "neuron", "serve"])
@pytest.mark.parametrize("which", ["LISTEN", "METRICS_LISTEN"])
def test_a_service_names_the_port_that_is_taken(scripted_fleet, service, which):
    port = urllib.parse.urlsplit(scripted_fleet.url).port
    section = "GATEWAY" if service == "serve" else service.upper()
    free = {
        f"CORTEX_{name}__{key}": "127.0.0.1:0"
        for name in ("GATEWAY", "REGISTRY", "NEURON")
        for key in ("LISTEN", "METRICS_LISTEN")
    }
    taken = {f"CORTEX_{section}__{which}": f"127.0.0.1:{port}"}

    done = run_cortex(service, env={**os.environ, **free, **taken})

    assert 69 == done.returncode, done.stderr
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("service", ["gateway", "registry", "neuron", "serve"])
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[gateway]\nlisten = 5\n[registry]\nlisten = 5\n[neuron]\nlisten = 5\n", "listen"),
        ("[nonsense]\n", "nonsense"),
        ("[[", "TOML"),
    ],
)
def test_a_bad_config_names_file_and_key(tmp_path, service, text, named):
    config = tmp_path / "cortex.toml"
    config.write_text(text)

    done = run_cortex(service, "--config", str(config))

    assert done.returncode in {1, 78}
    assert "cortex.toml" in done.stderr.replace("\n", "")
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_a_corrupt_model_file_is_a_clear_error(scripted_fleet, post):
    models = scripted_fleet.data_dir / "models"
    whole = (models / "alpha.gguf").read_bytes()
    (models / "truncated.gguf").write_bytes(whole[: len(whole) // 2])
    (models / "corrupt.gguf").write_bytes(b"not a model at all" * 1000)
    catalogue = scripted_fleet.data_dir / "models.toml"
    before = catalogue.read_text()
    entries = [
        f'[[models]]\nid = "{name}"\nsource = "path:{models / name}.gguf"\n'
        for name in ("truncated", "corrupt")
    ]
    catalogue.write_text("\n".join([before, *entries]))
    try:
        assert 0 == run_cortex("reload", "--registry", scripted_fleet.registry).returncode
        for name in ("truncated", "corrupt"):
            status, answer = post(CHAT, {"model": name, "messages": HI})
            assert 502 == status, answer
            assert name in answer["error"]["message"] or "model" in answer["error"]["message"]
    finally:
        catalogue.write_text(before)
        run_cortex("reload", "--registry", scripted_fleet.registry)
    status, _ = post(CHAT, {"model": "alpha", "messages": HI})
    assert 200 == status
