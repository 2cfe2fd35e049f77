#!/usr/bin/env bash
# All figures of an accelerator in one call of under ten minutes; what it prints is also in OUT/gpu.txt.
#
#     benchmarks/speed/gpu.sh OUT            # on a machine with a GPU or TPU
#     benchmarks/speed/gpu.sh OUT --toy      # the same calls at a size for a CPU, to see that they work
#
# Needed: Python with jax, flax and optax. PyTorch is measured beside it where it is installed. Nothing is downloaded: images are
# random bytes, since the time does not depend on them.
set -euo pipefail
if [[ $# -lt 1 || $# -gt 2 || ( $# -eq 2 && $2 != --toy ) ]]; then
    echo "gpu.sh: error: give a folder for the results and, if you like, --toy" >&2
    exit 2
fi
cd "$(dirname "$0")/../.."
out=$1 python=${PYTHON:-python3}
mkdir -p "$out"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} XLA_PYTHON_CLIENT_PREALLOCATE=false  # PyTorch needs memory, too
torch=()
"$python" -c 'import torch' 2>/dev/null && torch=(--torch)

if [[ ${2:-} == --toy ]]; then
    small=(--model=resnet_tiny --samples=64 --batch=16 --epochs=1 --rounds=1)
    large=(--model=resnet_tiny --shape 32 32 3 --samples=16 --batch=8 --epochs=1 --rounds=1 --dtype=bfloat16)
    other=(--model=vit_s4 --shape 32 32 3 --samples=16 --batch=8 --epochs=1 --rounds=1 --dtype=bfloat16)
    dtype=float32
else
    small=(--model=resnet18 --shape 32 32 3 --samples=5000 --batch=128 --epochs=20 --rounds=3)
    large=(--model=resnet50_imagenet --shape 224 224 3 --samples=1280 --batch=128 --epochs=3 --rounds=3 --dtype=bfloat16)
    other=(--model=vit_s16 --shape 224 224 3 --samples=1280 --batch=128 --epochs=3 --rounds=3 --dtype=bfloat16)
    dtype=bfloat16
fi
run() {
    echo "== step_time.py $*"
    timeout 200 "$python" benchmarks/speed/step_time.py "$@" || echo "failed with code $?"
    echo
}
{
    "$python" -c 'import jax; print(jax.__version__, *sorted({d.device_kind for d in jax.devices()}))'
    run "${small[@]}" --dtype=$dtype --augment "${torch[@]}"
    run "${small[@]}" --dtype=$dtype "${torch[@]}"
    run "${large[@]}"
    run "${other[@]}"
} 2>&1 | tee "$out/gpu.txt"
