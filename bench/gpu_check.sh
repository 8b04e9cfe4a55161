#!/usr/bin/env bash
# Everything that only a machine with a GPU can tell, as one JSON file and a table at the end:
#   bash bench/gpu_check.sh [result.json]
# Needs torch, Triton, nvcc, setuptools, ninja, pytest, hypothesis, scipy and matplotlib. Takes about
# six minutes where pytest-xdist is there; a step that fails or hangs does not stop the later ones,
# and the file is up to date after each. COMMIT names the commit where there is no git, PYTHON the
# interpreter.
set -uo pipefail

gpu=$(nvidia-smi -i 0 --query-gpu=name --format=csv,noheader 2>/dev/null) || gpu=
if [ $# -gt 0 ]; then result=$(realpath -m "$1"); else result=; fi
cd "$(dirname "$0")/.." || exit
python=${PYTHON:-python3}
name=$(tr '[:upper:] -' '[:lower:]__' <<<"${gpu:-none}")
result=${result:-$PWD/bench/results/gpu_$name.json}
mkdir -p "$(dirname "$result")"
# The package of this folder is built and tested, also where another is installed or none.
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
if ! "$python" -c 'import torch' 2>/dev/null; then
  echo "$python has no torch: activate its environment, or set PYTHON" >&2
  exit 2
fi
echo "GPU: ${gpu:-none found, so what needs one is skipped or fails}"
logs=$(mktemp -d "${result%.json}.logs.XXXXXX")
# Up to twelve processes share the cores.
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1

# Stopped, it stops what it started: each timeout passes the signal on to its command.
stop() {
  trap - INT TERM
  cat "$logs"/*.pid 2>/dev/null | xargs -r kill
  exit 130
}
trap stop INT TERM
# With job control, what runs in the background hears an interrupt.
set -m

merge() { "$python" bench/gpu_result.py merge "$logs" "$result"; }

# step NAME LIMIT COMMAND...: the command under a time limit in seconds, its output in a log.
step() {
  local name=$1 limit=$2 start=$SECONDS code=0
  shift 2
  # Interrupted, pytest still writes its report; -k ends what does not listen.
  timeout -s INT -k 10 "$limit" "$@" >"$logs/$name.log" 2>&1 &
  echo $! >"$logs/$name.pid"
  wait $! || code=$?
  rm "$logs/$name.pid"
  echo "$((SECONDS - start)) $code" >"$logs/$name.step"
  echo "$name: exit $code after $((SECONDS - start)) s"
}

skip() {
  echo "$2" >"$logs/$1.skipped"
  echo "$1: skipped, $2"
}

# sanitize TOOL: our CUDA kernels alone, and memory as it comes from the driver, so that a write
# beyond a tensor does not land in another one.
sanitize() {
  if ! command -v compute-sanitizer >/dev/null; then
    skip "$1" "compute-sanitizer is not there"
    return
  fi
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 step "$1" 150 compute-sanitizer --tool "$1" \
    --kernel-regex kns=rbn --report-api-errors no --error-exitcode 9 \
    "$python" -m pytest tests/test_cuda.py -k small_rbn -p no:cacheprovider
  if grep -q "Device not supported" "$logs/$1.log"; then
    skip "$1" "compute-sanitizer does not support the device as this machine shows it"
  fi
}

profile_once() {
  if ! command -v ncu >/dev/null; then
    skip ncu "ncu is not there"
    return
  fi
  local metrics=gpu__time_duration.sum,launch__grid_size,launch__block_size
  metrics+=,launch__registers_per_thread,launch__shared_mem_per_block
  metrics+=,launch__occupancy_limit_registers,launch__occupancy_limit_shared_mem
  metrics+=,sm__warps_active.avg.pct_of_peak_sustained_active
  metrics+=,sm__throughput.avg.pct_of_peak_sustained_elapsed
  metrics+=,smsp__issue_active.avg.pct_of_peak_sustained_active
  metrics+=,l1tex__throughput.avg.pct_of_peak_sustained_active
  metrics+=,sm__inst_executed_pipe_lsu.avg.pct_of_peak_sustained_active
  metrics+=,l1tex__data_bank_conflicts_pipe_lsu.sum
  metrics+=,dram__throughput.avg.pct_of_peak_sustained_elapsed
  step ncu 60 ncu --clock-control none --metrics "$metrics" \
    --kernel-name regex:"noise_masks_on_chip|rbn_masks_kernel" \
    "$python" bench/gpu_kernels.py --once
  if [ "$(cut -d' ' -f2 "$logs/ncu.step")" != 0 ]; then
    skip ncu "$(grep -m 1 -E "==ERROR==|Error" "$logs/ncu.log" || echo "it failed")"
  fi
}

arch=$(nvidia-smi -i 0 --query-gpu=compute_cap --format=csv,noheader 2>/dev/null) || arch=
if [ -n "$arch" ]; then export TORCH_CUDA_ARCH_LIST=$arch; fi
target=${arch:-9.0}
target=${target/./}
step build 120 "$python" setup.py build_ext --inplace
step facts 60 "$python" bench/gpu_result.py facts "$logs"
merge

# Correctness does not mind company; the sanitizers mostly wait for one thread.
sanitize memcheck &
sanitize racecheck &
mapfile -t arguments < <("$python" bench/gpu_result.py left_out "$logs")
limit=900
if "$python" -c 'import xdist' 2>/dev/null; then
  limit=270
  cores=$(nproc)
  arguments+=(-n "$((cores < 12 ? cores : 12))" --dist worksteal)
fi
step tests $limit "$python" -m pytest "${arguments[@]}" -p no:cacheprovider \
  --junitxml "$logs/tests.xml"
wait
merge

step triton_report 100 "$python" bench/triton_report.py --json --targets "$target" &
step cuda_report 100 "$python" bench/cuda_report.py --json --targets "$target" &
step equality 120 "$python" bench/gpu_equality.py --save "$logs/equality.json"
wait
merge

step kernels 120 "$python" bench/gpu_kernels.py --save "$logs/kernels.json"
merge
step training 150 "$python" bench/gpu_training.py --save "$logs/training.json"
merge
profile_once
merge

echo
"$python" bench/gpu_result.py show "$result"
code=$?
if [ $code = 0 ]; then rm -r "$logs"; else echo "logs: $logs"; fi
exit $code
