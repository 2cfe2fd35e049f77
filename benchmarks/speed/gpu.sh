#!/usr/bin/env bash
# All figures of an accelerator in one call of at most 13 minutes: one process at a time, the most telling part first.
#
#     benchmarks/speed/gpu.sh OUT            # on a machine with a GPU or TPU
#     benchmarks/speed/gpu.sh OUT --toy      # the same calls at a size for a CPU, to see that they work
#
# | part                 | files in OUT           | seconds at most | what it measures                                            |
# |----------------------|------------------------|-----------------|-------------------------------------------------------------|
# | forms.py             | forms                  | 260             | the step, as shipped and otherwise: time, share of the peak |
# | same_bits.py         | same_bits              | 150             | whether equal calls give equal bits, and what that costs    |
# | first_step.py        | first_step             | 110             | from a process's start to the first step; the whole command |
# | step_time.py --torch | step_time, …_augmented | 100 each        | beside PyTorch, eager and compiled, if it is installed      |
# | kernels.py           | kernels                | 60              | where the time of a step goes, by kind of kernel            |
# | lanes.py             | lanes                  | 200             | several rates at once on one device                         |
#
# Each part has .md and .json files. They grow row by row, but for step_time's, so that a part that runs into its limit leaves what it has.
# No part begins or goes on in the last half minute: then accelerator.py makes OUT/summary.md and OUT/accelerator.png of the files. What is
# printed is also in OUT/gpu.txt. The toy has no limits.
#
# Needed: Python with jax, flax, optax and orbax. PyTorch is measured beside it where it is installed, and the command where
# tensorflow_datasets is. Nothing is downloaded: images are random bytes, since the time does not depend on them.
set -euo pipefail
if [[ $# -lt 1 || $# -gt 2 || ( $# -eq 2 && $2 != --toy ) ]]; then
    echo "gpu.sh: error: give a folder for the results and, if you like, --toy" >&2
    exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd) python=${PYTHON:-python3}
cd "$(dirname "$0")/../.."
unset JAX_COMPILATION_CACHE_DIR  # compiling is measured
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export XLA_PYTHON_CLIENT_PREALLOCATE=false  # PyTorch needs memory, too
export TF_CPP_MIN_LOG_LEVEL=2  # else XLA warns of the kernels that it times
torch=() command=()
"$python" -c 'import torch' 2>/dev/null && torch=(--torch --compiled)
"$python" -c 'import tensorflow_datasets' 2>/dev/null && command=(--config=digits:quick)

if [[ ${2:-} == --toy ]]; then
    # Its compiling is not measured, and would be most of its time: fast, and equal programs once.
    JAX_COMPILATION_CACHE_DIR=$(mktemp -d)
    trap 'rm -r "$JAX_COMPILATION_CACHE_DIR"' EXIT
    export JAX_COMPILATION_CACHE_DIR JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_DISABLE_MOST_OPTIMIZATIONS=1
    toy=(--toy) command=()
    bits=(--networks resnet_tiny:float32 --size=8 --samples=200 --batch=8 --epochs=2)
    first=(--model=resnet_tiny --dtype=float32 --size=8 --samples=64 --batch=16)
    step=(--model=resnet_tiny --dtype=float32 --shape 8 8 3 --samples=64 --batch=16 --rounds=1)
    lanes=(--model=resnet_tiny --samples=32 --batch=16 --rounds=1)
else
    toy=() bits=() first=()
    step=(--model=resnet18 --dtype=bfloat16 --shape 32 32 3 --samples=5000 --batch=128 --epochs=5 --rounds=3)
    lanes=(--rounds=3 --more vit_s4)
fi
part() {
    local left=$((750 - SECONDS)) limit=$1
    shift
    echo "== $*"
    if (( ${#toy[@]} )); then limit=0; elif (( left < limit )); then limit=$left; fi  # 0 is none
    if (( ${#toy[@]} || limit > 0 )); then
        timeout --kill-after=5 "$limit" "$python" "benchmarks/speed/$1" --out="$out" "${@:2}" || echo "failed with code $?"
    else
        echo "failed: no time is left"
    fi
    echo "($SECONDS s since the start)"
    echo
}
{
    part 260 forms.py --seconds=230 "${toy[@]}"
    part 150 same_bits.py "${bits[@]}"
    part 110 first_step.py "${first[@]}" "${command[@]}"
    part 100 step_time.py "${step[@]}" "${torch[@]}"
    part 100 step_time.py "${step[@]}" "${torch[@]}" --augment
    part 60 kernels.py "${toy[@]}"
    part 200 lanes.py "${lanes[@]}"
    echo "== accelerator.py"
    "$python" benchmarks/speed/accelerator.py --out="$out" || echo "failed with code $?"
} 2>&1 | tee "$out/gpu.txt"
