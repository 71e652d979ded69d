# dft in a batch job.  Source this file in a job script (bash) of Slurm or OAR:
#
#   source jobs/dft-job.sh
#   dft_stage_in data.h5 code/       # a complete copy of each on every node, below $DFT_FILES
#   dft_on_each "$DFT_FILES/code/run" "$DFT_FILES/data.h5" "$DFT_OUTPUT"
#   dft_stage_out results/           # what each node has in $DFT_OUTPUT, as results/NODE
#
# A function that fails has said why and returns dft's exit code; under 'set -e' that ends the job.  What the
# job had on the nodes' disks is removed when the script ends, also when it fails or is told to end (SIGTERM).
#
# To set before, where the defaults do not fit:
#   DFT_SCRATCH   a directory on each node's own disk, the same path on all                    [/tmp]
#   DFT_STORE, DFT_CATALOG   stores and a catalog that outlive the job, so that the next one finds what is
#                 there already: they are not removed.  One job at a time can use them; by default each job,
#                 and each task of an array, has its own.
#   DFT_SRUN      pmi2 or pmix: start dft by 'srun --mpi=...' of Slurm instead of by mpirun
# What the functions set, in the environment of the programs as well:
#   DFT_FILES     where the nodes' copies are: $DFT_FILES/NAME is a plain read-only file or a directory
#   DFT_OUTPUT    an empty directory on each node for what a program writes

_dft_job=${SLURM_JOB_ID:-${OAR_JOB_ID:?dft-job.sh: this is no job of Slurm or OAR}}
_dft_directory=${DFT_SCRATCH:-/tmp}/dft-$(id -un)-$_dft_job
export DFT_STORE=${DFT_STORE:-$_dft_directory/store}
export DFT_CATALOG=${DFT_CATALOG:-$_dft_directory/catalog.db}
export DFT_FILES=$DFT_STORE/files
export DFT_OUTPUT=$_dft_directory/output

# Run a command; unlike one in the foreground it does not keep bash from heeding a signal.
_dft_run() {
    "$@" </dev/null &
    _dft_running=$!
    wait "$_dft_running"
}

# Run dft on the job's nodes: a data server on each, and rank 0 beside the one on this node, the first.
_dft() {
    if [[ -z ${DFT_SRUN:-} ]]; then
        _dft_run dft "$@"
        return
    fi
    export SLURM_HOSTFILE=$_dft_directory/hosts
    scontrol show hostnames "$SLURM_JOB_NODELIST" | sed '1p' >"$SLURM_HOSTFILE"
    local code=0
    _dft_run srun --mpi="$DFT_SRUN" --ntasks=$((SLURM_JOB_NUM_NODES + 1)) --distribution=arbitrary --overlap \
        --overcommit dft "$@" || code=$?
    unset SLURM_HOSTFILE # it would hold for every other srun
    return "$code"
}

# Run a command once on each of the job's nodes, at the same time, in this directory; fail if one fails.
dft_on_each() {
    if [[ -n ${SLURM_JOB_ID:-} ]]; then
        _dft_run srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --overlap "$@"
        return
    fi
    local node code=0 running=() remote
    remote="cd $(printf %q "$PWD") && exec $(printf '%q ' env "DFT_STORE=$DFT_STORE" "DFT_FILES=$DFT_FILES" \
        "DFT_OUTPUT=$DFT_OUTPUT" "OAR_JOB_ID=$OAR_JOB_ID" "PATH=$PATH" "$@")"
    while read -r node; do
        oarsh "$node" "$remote" </dev/null &
        running+=($!)
    done < <(sort -u "$OAR_NODEFILE")
    for one in "${running[@]}"; do
        wait "$one" || code=$?
    done
    return "$code"
}

# dft_stage_in PATH...: give every node a complete copy of each local file or directory.
dft_stage_in() {
    local path commands=''
    for path in "$@"; do
        path=$(realpath -e "$path") || return
        commands+="bcast $(printf %q "$path"); "
    done
    _dft -c "$commands"
}

# dft_stage_out DIR [PATH]: bring what each node has at PATH, by default $DFT_OUTPUT, to DIR/NODE.
dft_stage_out() {
    _dft -c "gather --to $(printf %q "$1") $(printf %q "${2:-$DFT_OUTPUT}")"
}

# Remove what the job has on the nodes; runs by itself at the end of the script.
dft_clean() {
    # Published directories can be read-only.
    # shellcheck disable=SC2016  # expanded on the node
    dft_on_each sh -c '[ ! -d "$1" ] || { chmod -R u+w "$1" && rm -rf "$1"; }' sh "$_dft_directory"
}

_dft_running=
trap dft_clean EXIT
trap 'kill $_dft_running 2>/dev/null; exit 143' TERM
dft_on_each mkdir -p "$DFT_OUTPUT"
