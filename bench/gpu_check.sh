#!/usr/bin/env bash
# What only a machine with a GPU can tell, as one JSON file, an archive of logs and a table:
#   bash bench/gpu_check.sh {1|2|3|all} [--out DIR] [--seconds S] [--resume FILE] [--again STEP ...]
#   bash bench/gpu_check.sh show [--out DIR]
# 1 builds, compares 10,000 settings with the CPU, times the kernels and profiles them; 2 runs the
# tests and the sanitizers; 3 times training steps. Each takes nine minutes at the most. A call goes
# on where an earlier one stopped. What to do with what comes: docs/gpu-day.md.
# Needs torch, Triton, nvcc, setuptools, ninja, pytest, hypothesis, scipy and matplotlib. PYTHON names
# the interpreter, COMMIT the commit where there is no git. --dry-run needs no GPU.
set -euo pipefail
python=${PYTHON:-python3}
if ! "$python" -c 'import torch' 2>/dev/null; then
  echo "$python has no torch: activate its environment, or set PYTHON" >&2
  exit 2
fi
export PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
exec "$python" -u "$(dirname "$0")/gpu_check.py" "$@"
