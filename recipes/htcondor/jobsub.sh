#!/bin/bash
# Fermilab's grid through jobsub_lite: a hundred jobs over one file of tracks, in a container that lies on CVMFS or dCache.
#
#   GROUP=dune IMAGE=/cvmfs/.../hepops.sif OUTPUT=/pnfs/dune/scratch/users/$USER/hits bash jobsub.sh /pnfs/.../tracks.h5
#
# More words go to jobsub_submit: --no-submit writes the submit files and stops.
set -euo pipefail
: "${GROUP:?of the experiment: dune, say}" "${IMAGE:?the Apptainer image}" "${OUTPUT:?a folder in dCache}"
tracks=${1:?a file of tracks}
shift
case $tracks in
  /pnfs/*) input=$tracks ;; # each job copies it from dCache
  *) input=dropbox://$(realpath "$tracks") ;; # sent along once, when the jobs are submitted
esac
jobs=${JOBS:-100}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

jobsub_submit --group "$GROUP" -N "$jobs" --expected-lifetime 2h --memory 4000MB --disk 8GB --cpu 1 \
  --singularity-image "$IMAGE" --input-file "$input" -e SEED="${SEED:-1}" -d HITS "$OUTPUT" "$@" \
  "file://$here/simulate.sh" "$jobs" "$(basename "$tracks")"
