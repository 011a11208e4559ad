#!/bin/sh
# The libraries that were built once, under other versions of torch and Python: nothing is compiled again.
set -e
cd "$(dirname "$0")/.."
bin=$(cd "${BIN:-.venv/bin}" && pwd)
site=$PWD/build/compat/site
oldest=2.10.0

rm -rf "$site" && mkdir -p "$site"
"$bin/cmake" --install build/editable --prefix "$site" > /dev/null
cp -r python/hepops "$site/"
sha256sum "$site"/hepops/libhepops_*.so > build/compat/sums

# suite <name> <python> <torch>: the test-suite in an environment of its own
suite() {
  env=$PWD/.venv-compat/$1
  echo "== $1: $("$2" --version), torch $3"
  test -x "$env/bin/python" || "$2" -m venv "$env"
  grep -vE '^(torch|clang-format|ruff|mypy|types-|scikit-build-core)' .venv/requires.txt > "$env/requires.txt"
  "$env/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "torch$3" -r "$env/requires.txt"
  PYTHONPATH=$site "$env/bin/python" -c 'import hepops, torch; print("hepops", hepops.__file__, "torch", torch.__version__)'
  PYTHONPATH=$site "$env/bin/python" -m pytest -p no:cacheprovider
  sha256sum --quiet -c build/compat/sums
}

suite oldest "$bin/python" "==$oldest"
suite newest "$bin/python" ""
# Another Python, where one is at hand.
for python in python3.13 python3.12; do
  if "$python" -c 'import venv' 2> /dev/null && [ "$("$python" -c 'import sys; print(sys.version_info[:2])')" != "$("$bin/python" -c 'import sys; print(sys.version_info[:2])')" ]; then
    suite "$python" "$python" ""
    break
  fi
done
