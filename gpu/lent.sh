#!/usr/bin/env bash
# The proof on a machine that is lent for minutes and reaches no network, in three calls of at most
# ten minutes each. `gpu/bring.sh` gathers what it needs, before the first: nothing is to be made in
# between, so that the next call is sent while the machine is still kept. See docs/gpu.md.
#   gpu/lent.sh carries N   says what call N carries: at most 64 MiB with the checkout
#   gpu/lent.sh 1|2|3       is the call. Each runs in any order and leaves out what it lacks
# OUT   a folder whose files come back: the report, the results and the built extension.
# Where the machine was lost in between, put the two archives of OUT into .exl/, where the next call
# finds and carries them: the build is skipped, and results of parts that are not run again stay.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = carries ]; then
  case ${2:?1, 2 or 3} in
    1) wanted=(.exl/wheels .exl/protos .exl/model/parts .exl/model/part.aa) ;;
    2) wanted=(.exl/wheels .exl/protos .exl/model/parts .exl/model/part.ab) ;;
    *) wanted=(.exl/model/parts .exl/model/part.ac .exl/model/part.ad) ;;
  esac
  for path in "${wanted[@]}" .exl/extension.tar.gz .exl/results.tar; do
    if [ -e "$path" ]; then printf '%s ' "$path"; fi
  done
  echo
  exit
fi
scratch=${SCRATCH:-/tmp/cortex-proof}
out=${OUT:?a folder for what comes back}
export WORK=$scratch/work XDG_CACHE_HOME=$scratch/cache GGUF=$scratch/smollm2.gguf
export PYTHONPATH=$scratch/site
python=${PYTHON:-python3}
built=$XDG_CACHE_HOME/cortex/exllamav2
mkdir -p "$WORK/results" "$built" "$scratch/model"

# The machine keeps what earlier calls carried, or not: it is taken out of its way at once.
cp -n .exl/model/part.* "$scratch/model/" 2>/dev/null || true
# Newer versions of cp call a file that is there already a failure of -n.
if [ -d .exl/protos ]; then cp -rn .exl/protos/. protos/ || true; fi
if [ -f .exl/extension.tar.gz ]; then
  tar -xzf .exl/extension.tar.gz --skip-old-files -C "$built"
fi
if [ -f .exl/results.tar ]; then
  tar -xf .exl/results.tar --skip-old-files -C "$WORK/results"
fi
if [ -d .exl/wheels ] && [ ! -d "$scratch/site" ] && [ "${EMU:-0}" != 1 ]; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$scratch/site" .exl/wheels/*.whl
fi

# CUDA's libraries may lie in Python packages, without which the extension finds no headers.
if [ -z "${CUDA_HOME:-}" ]; then
  for place in /usr/local/cuda "$(dirname "$(dirname "$(readlink -f "$(command -v nvcc || echo /)")")")"; do
    if [ -x "$place/bin/nvcc" ] && [ -f "$place/include/cuda_runtime.h" ]; then
      export CUDA_HOME=$place
      break
    fi
  done
fi
for place in $("$python" -c 'import site, sys; print(*site.getsitepackages())'); do
  if [ -d "$place/nvidia/cu13/include" ]; then
    export CPATH="$place/nvidia/cu13/include${CPATH:+:$CPATH}"
  fi
done

has_model=0
if [ -f .exl/model/parts ]; then cp .exl/model/parts "$scratch/model/"; fi
if [ -f "$scratch/model/parts" ]; then
  has_model=1
  for part in $(cat "$scratch/model/parts"); do
    if [ ! -f "$scratch/model/$part" ]; then
      echo "gpu/lent.sh: SmolLM2 lacks $part, which another call carries" >&2
      has_model=0
    fi
  done
fi
if [ "$has_model" = 1 ]; then
  (cd "$scratch/model" && xargs cat <parts) >"$GGUF"
fi

case ${1:?1, 2 or 3} in
  1) parts="environment extension kernel" ;;
  2)
    parts="make_models raw_loop over_grpc memory"
    export PROOF_MODELS=random-8b-gptq
    ;;
  3)
    parts="make_models parity raw_loop over_grpc faults"
    export PROOF_MODELS="smollm2-fp16 smollm2-gptq"
    if [ "$has_model" = 0 ]; then parts=""; fi
    ;;
  *) echo "gpu/lent.sh: 1, 2 or 3" >&2; exit 2 ;;
esac
status=0
# What is left of ten minutes, less what the report and the archives take.
export TOTAL_SECONDS=${TOTAL_SECONDS:-$((560 - SECONDS))}
# An empty list would be all of them.
PARTS=${parts:-none} gpu/prove.sh "$out/report.md" || status=$?
tar -cf "$out/results.tar" -C "$WORK/results" .
mkdir -p "$scratch/logs"
for log in "$WORK"/*.out; do
  if [ -f "$log" ]; then tail -c 20000 "$log" >"$scratch/logs/$(basename "$log")"; fi
done
tar -czf "$out/logs.tar.gz" -C "$scratch/logs" .
if ls "$built"/*/exllamav2_ext.so >/dev/null 2>&1; then
  tar -czf "$out/extension.tar.gz" -C "$built" .
fi
ls -l "$out" >&2
exit $status
