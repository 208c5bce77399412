"""Other people's gateways, each in an environment of its own, with pinned versions.

`python -m bench.peers install` makes the environments; a peer that is not there is skipped
with its reason. They get their cheapest configuration: no keys, no data base, no logging.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from bench.processes import TARGET_CPU, Process
from bench.targets import Launch, Mock, Skipped, Starting, Target
from tests.doubles.processes import free_port

PINNED: Final = MappingProxyType(
    {"litellm": "litellm[proxy]==1.106.2", "vllm-router": "vllm-router==0.1.17"}
)
_INSTALLED = "installed.txt"


def default_cache() -> Path:
    """Where environments and built programs are kept: CORTEX_BENCH_CACHE or the temp folder."""
    kept = os.environ.get("CORTEX_BENCH_CACHE")
    return Path(kept) if kept else Path(tempfile.gettempdir()) / "cortex-bench"


def install(name: str, cache: Path) -> None:
    """Makes a peer's environment, unless the pinned version is already there.

    Raises:
        subprocess.CalledProcessError: pip could not.
    """
    folder, requirement = cache / name, PINNED[name]
    marker = folder / _INSTALLED
    if marker.exists() and marker.read_text() == requirement:
        return
    venv.create(folder, with_pip=True, clear=not (folder / "bin" / "python").exists())
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", requirement]
    subprocess.run(pip, check=True)
    marker.write_text(requirement)


def _program(name: str, program: str, cache: Path) -> Path:
    folder = cache / name
    if not (folder / _INSTALLED).exists():
        raise Skipped(f"{PINNED[name]} is not installed (python -m bench.peers install)")
    return folder / "bin" / program


def litellm(mock: Mock, cache: Path, starting: Starting) -> Target:
    """LiteLLM's proxy with one worker."""
    program, port = _program("litellm", "litellm", cache), free_port()
    config = cache / "litellm.yaml"
    config.write_text(
        "model_list:\n  - model_name: bench\n    litellm_params:\n      model: openai/bench\n"
        f"      api_base: http://127.0.0.1:{mock.http_port}/v1\n      api_key: sk-bench\n"
        "litellm_settings:\n  num_retries: 0\n  telemetry: false\n"
    )
    command = [str(program), "--config", str(config), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--num_workers", "1"]
    environment = {
        # It refuses to start without a key and would fetch a price list.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
    }
    log = cache / "litellm-run.log"
    process = starting(Process(command, cpu=TARGET_CPU, log=log, environment=environment))
    process.wait_for_port(port)
    return Target(name="litellm", port=port, process=process, settle=True, most_connections=64)


def vllm_router(mock: Mock, cache: Path, starting: Starting) -> Target:
    """VLLM's router (Rust) with one worker URL."""
    program, port = _program("vllm-router", "vllm-router", cache), free_port()
    command = [str(program), "--worker-urls", f"http://127.0.0.1:{mock.http_port}"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--policy", "round_robin"]
    command += ["--log-level", "warning", "--prometheus-port", str(free_port())]
    log = cache / "vllm-router-run.log"
    process = starting(Process(command, cpu=TARGET_CPU, log=log))
    process.wait_for_port(port)
    return Target(name="vllm-router", port=port, process=process)


def nginx(mock: Mock, cache: Path, starting: Starting) -> Target:
    """Nginx as a plain reverse proxy: the floor."""
    program = shutil.which("nginx")
    if program is None:
        raise Skipped("nginx is not on PATH")
    port = free_port()
    folder = cache / "nginx"
    folder.mkdir(exist_ok=True)
    config = folder / "nginx.conf"
    config.write_text(
        f"worker_processes 1;\ndaemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
        "events { worker_connections 8192; }\nhttp {\n  access_log off;\n"
        f"  client_body_temp_path {folder}/body;\n  proxy_temp_path {folder}/proxy;\n"
        f"  upstream mock {{ server 127.0.0.1:{mock.http_port}; keepalive 1024; }}\n"
        f"  server {{\n    listen 127.0.0.1:{port} backlog=4096;\n    keepalive_requests 1000000;\n"
        "    location / { proxy_pass http://mock; proxy_http_version 1.1;\n"
        '      proxy_set_header Connection ""; proxy_buffering off; }\n  }\n}\n'
    )
    log = cache / "nginx-run.log"
    process = starting(
        Process([program, "-e", str(log), "-c", str(config)], cpu=TARGET_CPU, log=log)
    )
    process.wait_for_port(port)
    return Target(name="nginx", port=port, process=process)


PEERS: Final = MappingProxyType[str, Launch](
    {"litellm": litellm, "vllm-router": vllm_router, "nginx": nginx}
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Installs the named peers, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["install"])
    parser.add_argument("names", nargs="*", default=list(PINNED), help=", ".join(PINNED))
    parser.add_argument("--cache", type=Path, default=default_cache())
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        print(f"{name}: installing {PINNED[name]}")
        install(name, options.cache)
    return 0


if __name__ == "__main__":
    sys.exit(main())
