#!/bin/bash
#OAR -n dft-job
#OAR -l nodes=4,walltime=0:30:00
#OAR --checkpoint 60
#OAR --signal 15
# A data set and a software tree on every node's own disk, a program from the one on the other, results home.
#
#   oarsub -S "jobs/oar/job.oar.sh DATA SOFTWARE PROGRAM [ARG ...]"
#   oarsub --array 8 -S "jobs/oar/job.oar.sh DATA SOFTWARE PROGRAM [ARG ...]"
#
# PROGRAM, a path below SOFTWARE, runs once on each node in the node's output directory, with the path of the
# node's copy of DATA and then ARG ....  What it writes there comes to results-JOB/NODE.  Each job of an array
# has stores and a catalog of its own.
set -euo pipefail
source "${DFT_JOBS:-$PWD/jobs}/dft-job.sh"

usage='usage: job.oar.sh DATA SOFTWARE PROGRAM [ARG ...]'
data=${1:?$usage} software=${2:?$usage} program=${3:?$usage}
shift 3

dft_stage_in "$data" "$software"

# shellcheck disable=SC2016  # expanded on the node
dft_on_each sh -c 'cd "$DFT_OUTPUT" && exec "$@"' sh \
    "$DFT_FILES/$(basename "$software")/$program" "$DFT_FILES/$(basename "$data")" "$@"

dft_stage_out "results-$OAR_JOB_ID"
