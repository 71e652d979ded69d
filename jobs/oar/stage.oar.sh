#!/bin/bash
#OAR -n dft-stage
#OAR -l nodes=4,walltime=0:30:00
# Stage input to every node's own disk, run a program on the plain files, publish what it wrote there.
#
#   oarsub -S "jobs/oar/stage.oar.sh INPUT PROGRAM [ARG ...]"
#
# INPUT, a file or a directory, is sent to all nodes.  PROGRAM runs once on each node with ARG ..., and finds
# in its environment INPUT, the node's own read-only copy, and OUTPUT, an empty directory on the node's disk.
# What it leaves in OUTPUT is published as JOB/output/NODE and stays on the nodes; a later session on the
# same catalog and nodes brings it home:  dft> get JOB/output
set -euo pipefail

input=$(realpath "${1:?usage: stage.oar.sh INPUT PROGRAM [ARG ...]}")
: "${2:?usage: stage.oar.sh INPUT PROGRAM [ARG ...]}"
shift

# The stores on a disk that outlives the job; the catalog where the next session finds it.
export DFT_STORE=${DFT_STORE:-/tmp/dft-$USER}
export DFT_CATALOG=${DFT_CATALOG:-$HOME/dft-catalog.db}
in=$DFT_STORE/files/$OAR_JOB_ID/input/${input##*/}
out=/tmp/dft-output-$OAR_JOB_ID

# A data server on each node, and rank 0 beside the one on this node.  oarsh takes ssh's place (Open MPI 5, 4).
export PRTE_MCA_plm_ssh_agent=oarsh OMPI_MCA_plm_rsh_agent=oarsh
mapfile -t nodes < <(uniq "$OAR_NODEFILE")
hosts=$(printf ',%s:1' "${nodes[@]:1}")
dft() { mpirun --host "${nodes[0]}:2$hosts" --bind-to none -np $((${#nodes[@]} + 1)) dft "$@"; }

dft -c "bcast $(printf %q "$input") $OAR_JOB_ID/input/$(printf %q "${input##*/}")"

program=$(printf '%q ' env "INPUT=$in" "OUTPUT=$out" "$@")
running=()
for node in "${nodes[@]}"; do
    oarsh "$node" "mkdir $out && cd $out && exec $program" &
    running+=($!)
done
for one in "${running[@]}"; do
    wait "$one"
done

publish=''
for node in "${nodes[@]}"; do
    publish+="put --from $node $out $OAR_JOB_ID/output/$node; "
done
dft -c "$publish ls -l $OAR_JOB_ID"
for node in "${nodes[@]}"; do
    oarsh "$node" "rm -rf $out"
done
