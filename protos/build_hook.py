"""Generates the Python modules of the contract, beside the protos.

Run as `python protos/build_hook.py` after an edit; hatchling runs the same at every build and
install. Writes messages for all files, services for `*_service.proto`, type stubs for both, and a
digest of the protos, by which a test tells stale output.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import pathlib
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
else:
    try:
        from hatchling.builders.hooks.plugin.interface import BuildHookInterface
    except ImportError:  # run as a command, without hatchling
        BuildHookInterface = object

PROTOS = pathlib.Path(__file__).resolve().parent
PACKAGE = PROTOS / "cortex" / "v1"
DIGEST = PACKAGE / "_digest.txt"
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def digest() -> str:
    """Hex SHA-256 over the names and contents of all protos."""
    total = hashlib.sha256()
    for path in sorted(PACKAGE.glob("*.proto")):
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def generate() -> None:
    """Replaces all generated files.

    Raises:
        RuntimeError: protoc found an error; it has printed file and line.
    """
    from grpc_tools import protoc  # only the build environment has it

    # protoc looks its plugins up in PATH, which an environment that is not activated is not in.
    os.environ["PATH"] = os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"]))

    for pattern in GENERATED:
        for stale in PACKAGE.glob(pattern):
            stale.unlink()
    well_known = str(importlib.resources.files("grpc_tools") / "_proto")
    messages = [str(path.relative_to(PROTOS)) for path in sorted(PACKAGE.glob("*.proto"))]
    services = [name for name in messages if name.endswith("_service.proto")]
    include = ["protoc", f"-I{PROTOS}", f"-I{well_known}"]
    runs = (
        [*include, f"--python_out={PROTOS}", f"--mypy_out=quiet:{PROTOS}", *messages],
        [*include, f"--grpc_python_out={PROTOS}", f"--mypy_grpc_out=quiet:{PROTOS}", *services],
    )
    for arguments in runs:
        if protoc.main(arguments) != 0:
            message = "protoc failed; its complaint is above"
            raise RuntimeError(message)
    DIGEST.write_text(digest() + "\n")


class ProtoHook(BuildHookInterface):  # type: ignore[misc,unused-ignore]
    """Hatchling's way in."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generates before anything is packed."""
        del version, build_data
        generate()


if __name__ == "__main__":
    generate()
    sys.stdout.write(f"generated {PACKAGE}\n")
