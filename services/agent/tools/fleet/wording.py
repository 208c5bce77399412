"""What a gateway tells of its fleet, in the few lines that a model needs. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024.0


def status(snapshot: Mapping[str, Any]) -> str:
    """Returns the neurons with what they hold, the other models, and what is waited for."""
    neurons = snapshot.get("neurons", ())
    lines = [line for one in neurons for line in _neuron(one)] or ["No neuron is in the fleet."]
    held = {each["model"] for one in neurons for each in one["instances"]}
    others = [one["model"] for one in snapshot.get("models", ()) if one["model"] not in held]
    if others:
        lines.append(f"Not loaded: {', '.join(others)}")
    for one in snapshot.get("pending", {}).get("placements", ()):
        told = one["problem"] or (step(one["step"]) if one["step"] else "waits")
        lines.append(f"Waited for: {one['model']} by {one['waiters']}: {told}")
    if not snapshot.get("registry", {}).get("followed", True):
        lines.append("The registry cannot be reached: this is the fleet as it was seen last.")
    return "\n".join(lines)


def explanation(told: Mapping[str, Any]) -> str:
    """Returns where a model would go and why."""
    lines = [f"{told['model']}: {told['verdict']}. {told['summary']}"]
    if told["required_bytes"]:
        lines.append(f"It needs {size(told['required_bytes'])} ({told['footprint_source']}).")
    for one in told["candidates"]:
        verdict = "would fit" if one["feasible"] else "cannot take it"
        line = f"- {one['neuron']} {verdict}: {one['reason']}; free {size(one['free_bytes'])}"
        if one["evicts"]:
            line += f"; would unload {', '.join(one['evicts'])}"
        lines.append(line)
    return "\n".join(lines)


def step(told: Mapping[str, Any]) -> str:
    """Returns one step of a load, an unload or a drain."""
    match told.get("kind"):
        case "placed":
            return f"loaded on {told['neuron']} as {told['instance']}"
        case "evicting":
            return f"makes room on {told['neuron']}: unloads {', '.join(told['victims'])}"
        case "loading":
            progress = told["progress"]
            done, total = progress["bytes_done"], progress["bytes_total"]
            share = f", {done / total:.0%}" if total else ""
            return f"loads on {told['neuron']}: {progress['phase']}{share}"
        case "queued":
            return f"waits, {told['position']} before it: {told['reason']}"
        case _:
            left = told.get("instances_left", 0), told.get("active_requests_left", 0)
            return f"{left[0]} instances and {left[1]} requests left"


def size(count: float) -> str:
    """Returns bytes as people read them."""
    unit = 0
    while count >= _STEP and unit < len(_UNITS) - 1:
        count, unit = count / _STEP, unit + 1
    return f"{count:.3g} {_UNITS[unit]}"


def _neuron(one: Mapping[str, Any]) -> Iterator[str]:
    yield f"{one['name']}: {one['state']}; {_devices(one['devices'])}"
    for problem in one["problems"]:
        yield f"  problem: {problem}"
    for held in one["instances"]:
        work = f"{held['active']} of {held['places']} places in use, {held['queued']} wait"
        reason = f" ({held['reason']})" if held["reason"] else ""
        yield f"  {held['model']}: {held['state']}{reason}; {work}"


def _devices(devices: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{each['id']} {size(each['free'])} of {size(each['total'])} free"
        + (f", quarantined: {each['quarantine']}" if each["quarantine"] else "")
        for each in devices
    )
