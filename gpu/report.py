"""Writes one Markdown report of everything that was kept."""

from __future__ import annotations

import datetime as dt
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from gpu.bench_setting import CLEAR, EMULATED, NEW_TOKENS, PROMPT_TOKENS, kept, kept_by_model

_RATIO_WANTED = 0.95
_RATIO_STREAMS = "16"


def main() -> int:
    """Writes the report to the file that is named, and prints it.

    Returns: the exit code, 1 where a target was missed.
    """
    text = "\n".join(_lines()) + "\n"
    if len(sys.argv) > 1:
        pathlib.Path(sys.argv[1]).write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return int(any(is_met is False for *_, is_met in _judged()))


def _lines() -> Iterator[str]:
    yield "# ExLlamaV2 in Cortex: the proof" + (" (REHEARSAL, emulated)" if EMULATED else "")
    yield ""
    if EMULATED:
        yield "Tiny random models on a CPU: the figures say that everything runs, and nothing more."
        yield ""
    yield f"Made {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC by `gpu/prove.sh`."
    for title, part in _PARTS:
        yield ""
        yield f"## {title}"
        yield ""
        yield from part()


def _environment() -> Iterator[str]:
    yield from _facts(kept("environment"))
    yield from _facts(kept("extension"), prefix="extension: ")


def _targets() -> Iterator[str]:
    yield "| target | wanted | seen | met |"
    yield "|---|---|---|---|"
    for name, wanted, seen, is_met in _judged():
        mark = "not measured" if is_met is None else ("yes" if is_met else "**no**")
        yield f"| {name} | {wanted} | {seen} | {mark} |"


def _judged() -> Iterator[tuple[str, str, str, bool | None]]:
    for name, ratio in _ratios().items():
        wanted = f"at least {_RATIO_WANTED}"
        label = f"Cortex over gRPC / raw loop, {_RATIO_STREAMS} streams, {name}"
        is_met = None if EMULATED else ratio >= _RATIO_WANTED
        yield label, wanted, f"{ratio:.3f}", is_met
    parity = kept("parity") or {}
    if "identical" in parity:
        same, all_ = parity["identical"], parity["wanted"]
        asked, dropped = parity["asked"], parity["dropped_for_a_close_choice"]
        seen = f"{same} of {parity['prompts']} ({dropped} of {asked} had a choice within {CLEAR})"
        yield f"tokens as transformers, {parity['model']}", str(all_), seen, same == all_
    memory = kept("memory")
    if memory is not None:
        good = sum(row["came_back"] for row in memory["rounds"])
        is_met = good == len(memory["rounds"]) if memory["measured"] else None
        yield (
            "memory back within 64 MiB, or recycled",
            str(len(memory["rounds"])),
            str(good),
            is_met,
        )
    yield from _judged_faults()
    bare = (kept("llamacpp") or {}).get("streams", {}).get(_RATIO_STREAMS)
    if bare is not None:
        is_met = None if EMULATED else bare["ratio"] >= _RATIO_WANTED
        label = f"llama.cpp: our loop / the library's own, {_RATIO_STREAMS} streams"
        yield label, f"at least {_RATIO_WANTED}", f"{bare['ratio']:.3f}", is_met
    kernel = kept("kernel")
    if kernel is not None:
        passed, cases = kernel["passed"], kernel["cases"]
        yield "kernel cases against float64", str(cases), str(passed), passed == cases


def _judged_faults() -> Iterator[tuple[str, str, str, bool | None]]:
    result = kept("faults") or {}
    for fault, row in result.items():
        if not isinstance(row, dict):
            continue
        label, all_ = f"greedy streams equal after {fault}", result["streams"]
        if "failed" in row:
            yield label, str(all_), row["failed"], False
            continue
        same, margins = row["equal_to_unbroken"], row["margin_where_they_part"]
        ties = sum(margin < CLEAR for margin in margins)
        seen = f"{same}, and {ties} that part where the best two were within {CLEAR}"
        yield label, str(all_), seen, same + ties == all_
        is_back = row["another_process"] or fault == "an exception"
        seen = f"{row['ready_again_seconds']} s"
        yield f"READY again after {fault}", "in seconds", seen, is_back


def _ratios() -> dict[str, float]:
    raw, ours = kept_by_model("raw_loop") or {}, kept_by_model("over_grpc") or {}
    return {
        name: ours[name]["streams"][_RATIO_STREAMS]["tokens_per_second"]
        / raw[name]["streams"][_RATIO_STREAMS]["tokens_per_second"]
        for name in raw
        if name in ours
    }


def _kernel() -> Iterator[str]:
    result = kept("kernel")
    if result is None:
        yield "Not run."
        return
    yield f"- worst relative error of the Triton kernel: {result['worst_relative_error']:.2e}"
    yield f"- worst relative error of the fallback: {result['fallback_worst_relative_error']:.2e}"
    if result["speed"]:
        yield ""
        yield from _table(result["speed"])


def _speed() -> Iterator[str]:
    raw, ours = kept_by_model("raw_loop"), kept_by_model("over_grpc")
    if raw is None or ours is None:
        yield "Not run."
        return
    yield f"{PROMPT_TOKENS} prompt tokens and {NEW_TOKENS} new ones per stream, greedy."
    for name, one in raw.items():
        over: dict[str, Any] = ours.get(name, {"streams": {}, "load_seconds": "-"})
        yield ""
        yield f"### {name} (attention: {one['attention']})"
        yield ""
        yield f"Loading: {one['load_seconds']} s raw, {over['load_seconds']} s through the neuron."
        yield ""
        yield (
            "| streams | raw tok/s | Cortex tok/s | ratio | raw TTFT p50 | Cortex TTFT p50 | p95 |"
            " gap p95 |"
        )
        yield "|---|---|---|---|---|---|---|---|"
        for count, row in one["streams"].items():
            mine = over["streams"].get(count)
            if mine is None:
                continue
            ratio = mine["tokens_per_second"] / row["tokens_per_second"]
            yield (
                f"| {count} | {row['tokens_per_second']} | {mine['tokens_per_second']} |"
                f" {ratio:.3f} | {row['first_token_p50']} | {mine['first_token_p50']} |"
                f" {mine['first_token_p95']} | {mine['gap_p95']} |"
            )


def _memory() -> Iterator[str]:
    result = kept("memory")
    if result is None:
        yield "Not run."
        return
    yield f"{result['model']}; bytes in use by the driver's count."
    yield ""
    yield from _table(result["rounds"])


def _llamacpp() -> Iterator[str]:
    result = kept("llamacpp")
    yield from _facts({k: v for k, v in result.items() if k != "streams"} if result else None)
    if result and "streams" in result:
        yield ""
        yield f"{PROMPT_TOKENS} prompt tokens and {NEW_TOKENS} new ones per stream, greedy."
        yield ""
        yield from _table([{"streams": count, **row} for count, row in result["streams"].items()])


def _faults() -> Iterator[str]:
    yield from _facts(kept("faults"))


def _parity() -> Iterator[str]:
    yield from _facts(kept("parity"))


def _facts(result: dict[str, Any] | None, prefix: str = "") -> Iterator[str]:
    if result is None:
        yield f"- {prefix}not run"
        return
    for key, value in result.items():
        if isinstance(value, dict):
            inner = "; ".join(f"{k.replace('_', ' ')}: {v}" for k, v in value.items())
            yield f"- {prefix}{key}: {inner}"
        else:
            yield f"- {prefix}{key.replace('_', ' ')}: {value}"


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| " + " | ".join(key.replace("_", " ") for key in rows[0]) + " |"
    yield "|" + "---|" * len(rows[0])
    for row in rows:
        yield "| " + " | ".join(map(str, row.values())) + " |"


_PARTS = (
    ("Targets", _targets),
    ("Machine", _environment),
    ("Attention kernel", _kernel),
    ("Parity with transformers", _parity),
    ("Throughput", _speed),
    ("Load and unload", _memory),
    ("Faults", _faults),
    ("llama.cpp, our loop beside the library's own", _llamacpp),
)


if __name__ == "__main__":
    sys.exit(main())
