#!/bin/sh
# The checks that need a GPU, on a machine that may have no network: the Python at hand (with torch, pytest, cmake
# and what hepops imports), a build of its own with CUDA, the tests on the GPU, compute-sanitizer on the small
# ones, and the benchmarks, which write benchmarks/results/<card>.json.
set -e
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
fail() { echo "gpu-check: $1" >&2; exit 1; }

"$python" -c 'import torch' 2> /dev/null || fail "$python has no torch"
"$python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' || fail "no GPU that the torch of $python can use"
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2> /dev/null) || fail "no nvcc"
"$python" -c "import pytest" 2> /dev/null || fail "$python has no pytest"
cmake=$(command -v cmake) || fail "no cmake"

build=$PWD/build/gpu
site=$build/site
capability=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
"$cmake" -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DHEPOPS_WHEEL=ON -DHEPOPS_CUDA=ON -DCMAKE_CUDA_COMPILER="$nvcc" \
  -DCMAKE_CUDA_ARCHITECTURES="$capability" -DHEPOPS_FETCH=OFF -DPython_EXECUTABLE="$(command -v "$python")"
"$cmake" --build "$build" --parallel
rm -rf "$site"
"$cmake" --install "$build" --prefix "$site" > /dev/null
cp -r python/hepops "$site/"
export PYTHONPATH="$site"
# What the Python at hand lacks may lie as wheels in a folder: pip download -d build/wheels pydantic typer tqdm h5py PyYAML safetensors
wheels=${WHEELS:-build/wheels}
for module in pydantic typer tqdm h5py yaml safetensors; do
  "$python" -c "import $module" 2> /dev/null && continue
  [ -d "$wheels" ] || fail "$python has no $module, and there is no folder $wheels to take it from"
  [ "$module" = yaml ] && module=PyYAML
  "$python" -m pip install --quiet --no-index --find-links "$wheels" --target "$site" "$module"
done
"$python" -c 'import hepops; assert hepops._core.cuda_version, "the CUDA library was not built"'

"$python" -m pytest -k cuda -p no:cacheprovider
"$python" -m pytest tests/core/test_spills.py -p no:cacheprovider
# On values and gradients alone: it slows every kernel a hundredfold.
if sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2> /dev/null); then
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --error-exitcode 1 --target-processes all --print-limit 5 \
    "$python" -m pytest -k 'cuda and values_and_gradients' -p no:cacheprovider
  # What threads share: the convolution's tiles are brought to shared memory by asynchronous copies.
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool racecheck --error-exitcode 1 --target-processes all --print-limit 5 \
    "$python" -m pytest -k 'values_and_gradients_of_tiles and 40to160' -p no:cacheprovider
else
  echo "gpu-check: no compute-sanitizer here, so memory is not checked"
fi
"$python" benchmarks/run.py --json
