"""Says on standard output, as JSON, what a library is and which devices it sees."""

from __future__ import annotations

import sys

import msgspec

from services.neuron.devices.ggml import GgmlListing
from services.neuron.engines.llamacpp.library.builds import known
from services.neuron.engines.llamacpp.library.devices import listed
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.locate import locate


def main() -> None:
    """Lists the library that the argument names; empty finds one."""
    try:
        library = Library(locate(sys.argv[1]))
        listing = GgmlListing(
            version=library.version,
            library=f"{library.found.path.name} {library.found.origin}",
            usable=known(),
            devices=tuple(listed(library)),
        )
    except (ImportError, OSError) as error:
        listing = GgmlListing(problem=f"llama.cpp cannot be loaded: {error}")
    sys.stdout.write(msgspec.json.encode(listing).decode())


if __name__ == "__main__":
    main()
