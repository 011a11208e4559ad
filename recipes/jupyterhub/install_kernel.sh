#!/bin/bash
# A kernel named "hepops" for JupyterHub (Fermilab's EAF, NERSC, CERN's SWAN): run it once in a terminal of the hub.
#
#   bash install_kernel.sh ~/hepops-venv                           a venv, made where it is not there yet
#   bash install_kernel.sh "$(conda info --base)/envs/hepops"      the environment of environment.yml
#
# Put the folder where it outlives your session: the home, not the pod's disk. HEPOPS is what to install, a wheel with
# its extras ('hepops-0.1.0-py3-none-manylinux_2_28_x86_64.whl[plot]'), where none is on the index that pip asks. PYTHON
# makes the venv (3.11 or newer, python3 otherwise). KERNELS is the prefix that the hub reads kernels from, in place of ~/.local.
set -euo pipefail
environment=${1:-$HOME/hepops-venv}
python=$environment/bin/python

if [ ! -x "$python" ]; then
  "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "install_kernel.sh: hepops needs Python 3.11, ${PYTHON:-python3} is older: PYTHON=python3.12, say" >&2
    exit 1
  }
  "${PYTHON:-python3}" -m venv "$environment"
fi
if ! "$python" -c "import hepops" 2> /dev/null; then
  "$python" -m pip install --quiet "${HEPOPS:-hepops[plot]}"
fi
"$python" -c "import ipykernel" 2> /dev/null || "$python" -m pip install --quiet ipykernel

# A pod may be granted two of the machine's hundred cores; torch would start a thread for each of the hundred.
cores=$(nproc)
if read -r quota period 2> /dev/null < /sys/fs/cgroup/cpu.max && [ "$quota" != max ]; then
  granted=$(((quota + period - 1) / period))
  cores=$((granted < cores ? granted : cores))
fi

where=(--user)
[ -z "${KERNELS:-}" ] || where=(--prefix "$KERNELS")
"$python" -m ipykernel install "${where[@]}" --name hepops --display-name "hepops" \
  --env OMP_NUM_THREADS "$cores" --env OMP_WAIT_POLICY passive
"$python" -m hepops.cli info
