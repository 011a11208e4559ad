#!/bin/bash
# One job of many, in the container: simulate.sh [number of this job] jobs tracks.h5. jobsub gives the number in PROCESS
# and files in CONDOR_DIR_INPUT, and takes what lies in CONDOR_DIR_HITS; plain HTCondor does all in the job's folder.
# SEED, 1 where it is not set, is that of the whole production.
set -euo pipefail
if [ $# -eq 3 ]; then
  job=$1
  shift
else
  job=${PROCESS:?simulate.sh: neither a number of the job nor PROCESS}
fi
jobs=$1
tracks=${CONDOR_DIR_INPUT:-.}/$2

export OMP_NUM_THREADS=1 HOME="${_CONDOR_SCRATCH_DIR:-$PWD}" # torch writes caches; a worker has no home
hepops simulate "$tracks" -o "${CONDOR_DIR_HITS:-.}/hits_$job.h5" --seed "${SEED:-1}" --threads 1 --shard "$job/$jobs"
