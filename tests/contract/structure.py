"""The shape of the services by their imports: what `scripts/structure` prints and the tests hold.

A part is a folder or a file directly below a service. An arrow is a pair of parts of which one
imports the other. A part's floor is one above the highest part that it imports; the ground is 1.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from graphlib import TopologicalSorter

import grimp

SERVICES = ("backplane", "registry", "neuron", "gateway", "agent", "cli")


@dataclasses.dataclass(slots=True)
class Part:
    """One part of a service: how many files and imports it has, and which parts it imports."""

    files: int = 0
    imports: int = 0
    below: set[str] = dataclasses.field(default_factory=set[str])


@functools.cache
def imports() -> grimp.ImportGraph:
    """Every import of the services and the bench; those for types only count too."""
    return grimp.build_graph("services", "bench")


def parts_of(service: str) -> dict[str, Part]:
    """The parts of a service by name; none where there is no such service."""
    graph = imports()
    inside = f"services.{service}."
    found: dict[str, Part] = {}
    for name in sorted(name for name in graph.modules if name.startswith(inside)):
        own = name.removeprefix(inside).partition(".")[0]
        part = found.setdefault(own, Part())
        reached = [
            other.removeprefix(inside).partition(".")[0]
            for other in graph.find_modules_directly_imported_by(name)
            if other.startswith(inside)
        ]
        part.files += not graph.find_children(name)
        part.imports += len(reached)
        part.below |= {*reached} - {own}
    return found


def floors_of(parts: dict[str, Part]) -> dict[str, int]:
    """The floor of each part.

    Raises:
        CycleError: they import each other in a circle.
    """
    floors: dict[str, int] = {}
    for name in TopologicalSorter(
        {name: part.below for name, part in parts.items()}
    ).static_order():
        floors[name] = 1 + max((floors[below] for below in parts[name].below), default=0)
    return floors


def circles() -> set[tuple[str, str]]:
    """Imports without which no folder's parts would import each other in a circle: none, hopefully."""
    graph = imports()
    folders = [name for name in graph.modules if graph.find_children(name)]
    return {one for folder in folders for one in graph.nominate_cycle_breakers(folder)}


def _service_line(service: str) -> str:
    parts = parts_of(service)
    files, reached = (
        sum(getattr(part, n) for part in parts.values()) for n in ("files", "imports")
    )
    arrows = sum(len(part.below) for part in parts.values())
    floors = max(floors_of(parts).values())
    return f"{service:12}{len(parts):7}{files:7}{reached:9}{arrows:8}{floors:8}"


def _part_lines(service: str) -> list[str]:
    parts = parts_of(service)
    floors = floors_of(parts)
    order = sorted(parts, key=lambda name: (-floors[name], name))
    return [
        f"{name:20}{floors[name]:6}{parts[name].files:7}  {' '.join(sorted(parts[name].below))}"
        for name in order
    ]


def main() -> None:
    """Prints a line for each service, or for each part of the one that is named."""
    if circle := circles():
        sys.exit(f"scripts/structure: a circle of imports, by {sorted(circle)}")
    if len(sys.argv) == 1:
        head = f"{'service':12}{'parts':>7}{'files':>7}{'imports':>9}{'arrows':>8}{'floors':>8}"
        lines = [head, *map(_service_line, SERVICES)]
    elif sys.argv[1] in SERVICES:
        lines = [f"{'part':20}{'floor':>6}{'files':>7}  imports", *_part_lines(sys.argv[1])]
    else:
        told = f"no service {sys.argv[1]!r}; there are {', '.join(SERVICES)}"
        sys.exit(f"scripts/structure: {told}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
