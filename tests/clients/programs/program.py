"""Runs one program of a client in a folder of its own, with nothing of the user's in reach."""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import tempfile

# What the prompt orders; its output proves that the tool really ran.
COMMAND = "echo tool-ran-$((40+2))"
PROOF = "tool-ran-42"


@dataclasses.dataclass
class Ran:
    """What a program left behind."""

    code: int
    out: str
    err: str

    @property
    def events(self):
        """The lines of its output that are JSON."""
        found = []
        for line in self.out.splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found


class Program:
    """A command with its settings."""

    def __init__(self, *command, environment, files=None):
        self._command = command
        self._environment = environment
        self._files = files or {}

    def run(self, *arguments, seconds=180, **environment):
        """Runs it to its end; every call in a fresh home."""
        with tempfile.TemporaryDirectory() as folder:
            home = pathlib.Path(folder)
            (home / "work").mkdir()
            for name, text in self._files.items():
                path = home / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text.replace("HOME_DIR", folder))
            done = subprocess.run(
                [*self._command, *(a.replace("HOME_DIR", folder) for a in arguments)],
                cwd=home / "work",
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": folder,
                    "LANG": "C.UTF-8",
                    **{k: v.replace("HOME_DIR", folder) for k, v in self._environment.items()},
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        return Ran(done.returncode, done.stdout, done.stderr)

    def version(self, *arguments):
        """What it calls itself."""
        ran = self.run(*(arguments or ("--version",)))
        words = (ran.out or ran.err).split()
        return next(word for word in words if word[0].isdigit())


def program_path(name):
    """A program that npm installed."""
    return str(pathlib.Path(os.environ["CORTEX_PROGRAMS"], "node_modules", ".bin", name))
