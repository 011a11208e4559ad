#!/bin/sh
# make wheel: dist/hepops-<version>-py3-none-manylinux_2_28_x86_64.whl, for every Python from 3.11 and torch from 2.10.
# With nvcc at hand the CUDA library is in it, for seven architectures; without, or with CUDA=OFF, the CPU libraries
# alone, under the same name. CUDA12=1: by an nvcc 12, for V100 too (NVCC names one that is not the first on PATH).
# build/wheel keeps the objects, so that a second call compiles what has changed. Also dist/hepops-<version>.tar.gz.
set -e
cd "$(dirname "$0")/.."
bin=$(cd "${BIN:-.venv/bin}" && pwd)
export PATH="$bin:$PATH"
cuda=${CUDA:-ON}
families=${CUDA_FAMILIES:-75;80 86 89;90 100 120}
nvcc=${NVCC:-$(command -v nvcc || true)}
limit=60000000 # bytes
compress=
fail() { echo "wheel: $1" >&2; exit 1; }

build=${BUILD:-build/wheel}
if [ "${CUDA12:-0}" != 0 ]; then
  build=build/wheel12
  [ -n "$nvcc" ] || fail "CUDA12=1 needs an nvcc 12: NVCC=/path/to/cuda-12/bin/nvcc"
  release=$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
  case $release in
    12.[0-7]) families="70;75;80 86 89;90" ;;
    12.*) families="70;75;80 86 89;90 100 120" ;;
    *) fail "CUDA12=1 needs an nvcc 12, and $nvcc is of CUDA $release; V100 (sm_70) ended with CUDA 12" ;;
  esac
  # beside the other wheel under a name of its own: 0.2.0+cu12
  version=$(cmake -P cmake/version.cmake 2>&1)
  case $version in *+*) version=$version.cu12 ;; *) version=$version+cu12 ;; esac
  export SETUPTOOLS_SCM_PRETEND_VERSION_FOR_HEPOPS="$version"
fi
if [ "$cuda" = OFF ]; then
  echo "wheel: no CUDA library, as asked"
elif [ -z "$nvcc" ]; then
  echo "wheel: no CUDA library: no nvcc on PATH"
else
  export CUDACXX="$nvcc"
  # no compression mode before CUDA 12.4
  compress=$("$nvcc" --help | grep -q compress-mode && echo --compress-mode=size || echo -Xfatbin=-compress-all)
fi

rm -rf build/wheels && mkdir -p build/wheels dist
# shellcheck disable=SC2086 # the options are words
python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheels . \
  -C "build-dir=$build" \
  -C cmake.define.HEPOPS_MANYLINUX="${MANYLINUX:-ON}" \
  -C cmake.define.HEPOPS_LINEINFO=OFF \
  -C cmake.define.HEPOPS_CUDA="$cuda" \
  -C cmake.define.HEPOPS_CUDA_FAMILIES="$families" \
  -C cmake.define.CMAKE_CUDA_FLAGS="$compress" \
  ${LEVELS:+-C cmake.define.HEPOPS_CPU_LEVELS="$LEVELS"}

# torch, and with it CUDA and libgomp, is the user's: nothing is copied in. The tag says what the symbols ask for.
raw=$(echo build/wheels/*.whl)
repair() {
  auditwheel repair --plat "$1" --only-plat --wheel-dir build/wheels/repaired \
    --exclude 'libtorch*.so' --exclude 'libc10*.so' --exclude 'libcu*.so*' --exclude 'libgomp*.so*' "$raw"
}
repair "manylinux_2_28_$(uname -m)" 2> build/wheels/auditwheel.log || {
  echo "wheel: newer symbols than glibc 2.28's (auditwheel show says which); tagged as they are"
  repair auto 2>> build/wheels/auditwheel.log || { cat build/wheels/auditwheel.log >&2; exit 1; }
}
wheel=$(echo build/wheels/repaired/*.whl)
python scripts/wheel_contents.py "$wheel" --limit "$limit" > build/wheels/contents.txt || {  # a pipe would hide it
  cat build/wheels/contents.txt
  exit 1
}
cat build/wheels/contents.txt
mv "$wheel" dist/
python -m build --sdist --no-isolation --skip-dependency-check --outdir dist . > /dev/null
ls -l dist
