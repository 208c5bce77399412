"""`cortex neuron build-engine exllamav2`: compiles the extension once, before any worker runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from services.neuron.engines.exllamav2.library import build, probe


def main(argv: Sequence[str] | None = None) -> int:
    """Builds what is missing. Returns the exit code: 1 where that was not possible."""
    parser = argparse.ArgumentParser(prog="cortex neuron build-engine exllamav2")
    parser.add_argument("--jobs", type=int, help="compilers at a time")
    parser.add_argument("--limit-minutes", type=float, default=build.LIMIT_SECONDS / 60)
    arguments = parser.parse_args(argv)
    try:
        key = probe.build_key()
        file = key.file(build.cache_folder())
        if not file.is_file():
            sys.stderr.write(f"building for {key.name}; the log: {file.parent / 'build.log'}\n")
        build.build(
            key,
            cache=build.cache_folder(),
            limit_seconds=arguments.limit_minutes * 60,
            jobs=arguments.jobs,
        )
    except build.BuildFailedError as error:
        sys.stderr.write(f"cortex: {error}\n")
        return 1
    sys.stdout.write(f"{file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
