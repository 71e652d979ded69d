#!/bin/bash
#OAR -n dft-stage
#OAR -l nodes=4,walltime=0:30:00
#OAR --checkpoint 60
#OAR --signal 15
# Stage input to every node's own disk, run a program on the plain files, bring back what it wrote there.
#
#   oarsub -S "jobs/oar/stage.oar.sh INPUT PROGRAM [ARG ...]"
#
# INPUT, a file or a directory, is sent to all nodes.  PROGRAM runs once on each node with ARG ..., and finds
# in its environment INPUT, the node's own read-only copy, and OUTPUT, an empty directory on the node's disk.
# What it leaves in OUTPUT comes to dft-JOB/NODE in the directory where the job was submitted.  The job fails
# when any of this fails, and removes what it had on the nodes either way.
set -euo pipefail

input=$(realpath -e "${1:?usage: stage.oar.sh INPUT PROGRAM [ARG ...]}")
: "${2:?usage: stage.oar.sh INPUT PROGRAM [ARG ...]}"
shift

# On each node's own disk, and gone with the job; dft finds the job's nodes by itself.
scratch=${DFT_SCRATCH:-/tmp}/dft-$(id -un)-$OAR_JOB_ID
export DFT_STORE=$scratch/store DFT_CATALOG=$scratch/catalog.db
in=$DFT_STORE/files/${input##*/} out=$scratch/output

# Run a command on all nodes at the same time; fail if it fails on one.
on_each() {
    local node running=() code=0
    while read -r node; do
        oarsh "$node" "$(printf '%q ' "$@")" </dev/null &
        running+=($!)
    done < <(sort -u "$OAR_NODEFILE")
    for one in "${running[@]}"; do
        wait "$one" || code=$?
    done
    return "$code"
}

# chmod: directories that were sent can be read-only.  TERM comes a minute before the time is over.
trap 'on_each sh -c "chmod -R u+w $scratch; rm -rf $scratch"' EXIT
trap 'kill $(jobs -p) 2>/dev/null; exit 143' TERM
on_each mkdir -p "$out"

dft -c "bcast $(printf %q "$input")"

on_each env -C "$PWD" "INPUT=$in" "OUTPUT=$out" "$@"

dft -c "gather --to $(printf %q "$PWD/dft-$OAR_JOB_ID") $out"
