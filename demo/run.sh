#!/bin/sh
# A tour of dft with real files and four ranks on this machine; everything lies in one temporary directory.
set -eu

place=$(mktemp -d "${TMPDIR:-/tmp}/dft-demo.XXXXXX")
trap 'rm -rf "$place"' EXIT
trap 'exit 130' INT TERM
export HOME="$place" XDG_STATE_HOME="$place/state"
cd "$place"

say() { printf '\n== %s\n' "$*"; }

# Run the commands on standard input as a dft script, shown first.
session() {
    cat >commands
    sed 's/^/dft> /' commands
    echo
    dft -n 4 --store "$place/store" --catalog "$place/catalog.db" --script commands
}

say 'Some real files: a tree (Python'\''s own json and email packages), and 64 MiB of random bytes.'
library=$(python3 -c 'import os; print(os.path.dirname(os.__file__))')
mkdir tree
cp -Rp "$library/json" "$library/email" tree
find tree -name __pycache__ -type d -prune -exec rm -rf {} +
head -c 67108864 /dev/urandom >big.bin
head -c 1048576 /dev/urandom >small.bin
find tree big.bin small.bin -type f -exec sha256sum {} + >digests
echo "$(wc -l <digests) files, $(du -shc tree big.bin small.bin | tail -1 | cut -f1)"

say 'A session: rank 0 and three data servers. One file on one node, one spread over all, a tree on every node.'
session <<'COMMANDS'
put small.bin
diffuse big.bin
bcast tree
ls -l *.bin
ls_nodes
ls_chunks big.bin
COMMANDS

say 'On each node, the tree is now plain files that a job opens directly:'
find store -path '*/files/tree/json/__init__.py' -exec ls -l {} +

mkdir back

say 'A second session finds everything again and brings it back.'
session <<'COMMANDS'
lcd back
get small.bin
get big.bin
get tree
COMMANDS

say 'What came back has the digests that were taken before:'
(cd back && sha256sum --check --quiet ../digests && echo "all $(wc -l <../digests) files are the same")
