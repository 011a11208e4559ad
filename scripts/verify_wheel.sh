#!/bin/sh
# make verify-wheel: the wheel in fresh environments, from another folder, with nothing on PATH but the environment's own
# programs (no compiler): oldest and newest torch, Python 3.11 and 3.12, and 3.13 where it is at hand. A C++ program
# against the package in it. And the sdist: unpacked elsewhere, no git beside it, it builds a wheel of the same version.
# ONLY="py312-newest sdist" takes some of the checks; KEEP=1 uses environments of an earlier call again.
set -e
cd "$(dirname "$0")/.."
root=$PWD
oldest=2.10.0
wheel=$(find dist -name 'hepops-*.whl' -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2)
[ -n "$wheel" ] || { echo "verify-wheel: no wheel in dist: make wheel" >&2; exit 1; }
elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
checks=0

# interpreter <3.x>: its path, from PATH or from pyenv
interpreter() {
  for candidate in "python$1" "$HOME"/.pyenv/versions/"$1".*/bin/python; do
    if "$candidate" -c "import sys, venv; sys.exit(sys.version_info[:2] != (${1%.*}, ${1#*.}))" 2> /dev/null; then
      command -v "$candidate"
      return
    fi
  done
}

wanted() { [ -z "$ONLY" ] || case " $ONLY " in *" $1 "*) ;; *) return 1 ;; esac; }

# verify <name> <3.x> <torch's version, or nothing for the newest>
verify() {
  wanted "$1" || return 0
  python=$(interpreter "$2")
  if [ -z "$python" ]; then
    echo "verify-wheel: $1: no Python $2 here"
    case $2 in 3.1[12]) exit 1 ;; *) return 0 ;; esac # the two that the wheel is promised for
  fi
  env=$root/build/verify/$1
  [ -n "$KEEP" ] || rm -rf "$env"
  [ -x "$env/bin/python" ] || "$python" -m venv "$env"
  "$env/bin/python" -m pip install --quiet --disable-pip-version-check "torch${3:+==$3}"
  "$env/bin/python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$root/$wheel"
  "$env/bin/python" -m pip install --quiet --disable-pip-version-check "hepops[plot]"
  mkdir -p "$elsewhere/$1"
  (cd "$elsewhere/$1" && env -i HOME="$elsewhere" PATH="$env/bin" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" \
    "$env/bin/python" -I "$root/scripts/verify_wheel.py")
  checks=$((checks + 1))
}

# A C++ program against the package within the wheel, by a compiler that the wheel's users may have.
cpp() {
  wanted cpp || return 0
  env=$(find build/verify -maxdepth 1 -name 'py*' | head -n 1)
  [ -n "$env" ] || { echo "verify-wheel: cpp: no environment yet"; return 0; }
  mkdir -p "$elsewhere/cpp"
  cat > "$elsewhere/cpp/CMakeLists.txt" << 'END'
cmake_minimum_required(VERSION 3.26)
project(program LANGUAGES CXX)
find_package(hepops REQUIRED COMPONENTS core ops)
add_executable(program program.cpp)
target_link_libraries(program PRIVATE hepops::core hepops::ops)
END
  cat > "$elsewhere/cpp/program.cpp" << 'END'
#include <hepops/lartpc/drift.h>
#include <hepops/load/about.h>
#include <hepops/version.h>

#include <cstdio>
#include <string>

int main() {
  if (std::string(HEPOPS_VERSION) != hepops_about("version")) return 1;
  std::printf("%s %.10f\n", HEPOPS_VERSION, hepops::lartpc::velocity(0.5, 87.17));
}
END
  cmake=${BIN:-.venv/bin}/cmake
  [ -x "$cmake" ] || cmake=cmake
  "$cmake" -S "$elsewhere/cpp" -B "$elsewhere/cpp/build" -Dhepops_DIR="$("$env/bin/python" -m hepops.cmake)/hepops" > /dev/null
  "$cmake" --build "$elsewhere/cpp/build" > /dev/null
  said=$("$elsewhere/cpp/build/program")
  expected=$("$env/bin/python" -c 'import hepops; from hepops.lartpc.drift import velocity; print(hepops.__version__, f"{velocity(0.5):.10f}")')
  [ "$said" = "$expected" ] || { echo "cpp: $said, and Python says $expected" >&2; exit 1; }
  echo "cpp: find_package(hepops) of the wheel: $said, as Python says"
  checks=$((checks + 1))
}

sdist() {
  archive=$(find dist -name 'hepops-*.tar.gz' -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2)
  mkdir "$elsewhere/sdist" && tar -xzf "$archive" -C "$elsewhere/sdist" --strip-components 1
  # one level and no CUDA: the same sources as in the wheel, in a third of its time
  "${BIN:-.venv/bin}/python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$elsewhere/built" \
    -C cmake.define.HEPOPS_CPU_LEVELS="${LEVELS:-v3}" -C cmake.define.HEPOPS_CUDA=OFF "$elsewhere/sdist"
  said=$(basename "$archive" .tar.gz)
  built=$(basename "$elsewhere"/built/*.whl)
  case $built in "$said"-py3-none-*) echo "sdist: $built" ;; *) echo "sdist: $said.tar.gz became $built" >&2; exit 1 ;; esac
  checks=$((checks + 1))
}

verify py311-oldest 3.11 "$oldest"
verify py312-newest 3.12 ""
verify py313-newest 3.13 ""
cpp
! wanted sdist || sdist
[ "$checks" -gt 0 ] || { echo "verify-wheel: nothing was checked: no Python 3.11 to 3.13 here, or ONLY names no check" >&2; exit 1; }
echo "verify-wheel: $checks checks passed"
