"""The docopt text of each command, and the frame of the overview that ``help`` shows.

A text is: the usage, a paragraph of one sentence (its line in the overview), then options, notes and
examples.  docopt reads every line that begins with a dash as an option, and ``usage:`` only once.
"""

from __future__ import annotations

from dft.session_texts import SESSION_TEXTS

_TEXTS = (
    """\
Usage: put [--node NODE] [--copies K] [--dry-run] LOCAL [NAME]
       put --from NODE [--copies K] [--dry-run] PATH [NAME]

Publish a file or a whole directory on one node.

Options:
  --node NODE  Keep it on this node; without, on a random one, where more
               free space is more likely.
  --from NODE  PATH, which is absolute, lies on this node. Its own data server
               reads it and keeps the chunks; only metadata travels.
  --copies K   Keep it on K nodes, on different hosts where there are as many.
  --dry-run    Only say what would move, to which nodes.

Notes:
  NAME is the last component of LOCAL or PATH when it is not given, and a
  NAME that ends in / is a directory to publish into. Files are written once:
  a name that is taken is refused, and nothing is sent; one that is published
  with the same sizes and times is done already. After an interruption the same
  command sends what is missing. A symbolic link given here is followed; links,
  devices and sockets in a directory are skipped, and named. Copies are made
  from node to node once the first is complete; dft remembers how many are
  wanted, and ls -l and ls_nodes show what has fewer.
  LOCAL may be - for standard input, where that does not have the commands:
  what comes is sent as it comes, and published when it has ended.

Examples:
  put run.h5
  put --copies 2 run.h5
  put run.h5 data/
  put --node n03 results results-2024
  put --from n03 /scratch/run.h5 data/run.h5
  put - backup.tar
""",
    """\
Usage: mput [--node NODE] [--copies K] [--dry-run] PATH...

Publish several files, directories and patterns at once.

Options:
  --node NODE  Keep all of it on this node; without, on random ones, where
               more free space is more likely.
  --copies K   Keep each file on K nodes, as put does.
  --dry-run    Only say what would move, to which nodes.

Notes:
  Each PATH is published under its last component; a directory is taken whole.
  PATH may be a pattern (*, ?, [abc], and ** across directories); where a file
  is called literally so, that file is meant.

Examples:
  mput *.h5 notes.txt
  mput --node n03 /usr/lib/python3.11
""",
    """\
Usage: diffuse [--copies K] [--dry-run] PATH...

Publish with the chunks spread at random over all nodes.

Options:
  --copies K  Keep each chunk on K nodes, as put does with files.
  --dry-run   Only say what would move, to which nodes.

Notes:
  The chunks are balanced by bytes and free space, so that a get reads from
  all nodes at once. PATH is a local file, directory or pattern, or else a
  published name, whose chunks are then spread; those that lie well already
  stay where they are.

Examples:
  diffuse big.h5
  diffuse data/run.h5 'logs/*'
""",
    """\
Usage: bcast PATH [NAME] [--nodes LIST] [--to PATH] [--algorithm NAME]
             [--pipe COMMAND] [--timeout SECONDS] [--dry-run]

Give all nodes a complete copy, published first where it is not yet.

Options:
  --nodes LIST  Only these nodes, as in n[01-07],n12.
  --to PATH     Place the copy at this absolute path on each node as well. What
                is there is replaced by a rename, never half written.
  --algorithm NAME  How the bytes fan out: chain, binomial, two-tree,
                circulant, mpi (the MPI library's own) or auto, which picks
                [default: auto].
  --pipe COMMAND  Run this shell command on each node with the file on its
                standard input, while it comes in. A node whose command fails
                is named with its exit code, and the others go on.
  --timeout SECONDS  Kill a command that for so long neither reads what there
                is for it nor ends.
  --dry-run     Only say what would move, to which nodes.

Notes:
  PATH is a local file or directory, or else a published name. Each node ends
  with a plain read-only file, files/NAME in its store, that a job can open. A
  node that fails is named, and the others get their copy; the same command
  once more sends only what is missing. A command of --pipe gets the end of
  its input when the whole file was checked, and is killed if it never is.

Examples:
  bcast model.bin
  bcast --nodes n[01-07] model.bin models/
  bcast data/run.h5 --to /tmp/run.h5
  bcast --pipe 'tar xz -C /scratch' software.tar.gz
""",
    """\
Usage: gather [--nodes LIST] PATH [NAME]
       gather [--nodes LIST] [-f] --to DIR PATH

Publish what every node has at a path, or bring it here.

Options:
  --nodes LIST  Only these nodes, as in n[01-07],n12.
  --to DIR      Bring it to this local directory, made where missing, as
                DIR/NODE; nothing is published and the nodes keep no copy.
  -f, --force   Overwrite local files that exist.

Notes:
  PATH is absolute. A directory becomes NAME/NODE, a file NAME/NODE/FILE, for
  each node; NAME is the last component of PATH when it is not given. Each
  node's own data server reads its part and keeps the chunks, and only metadata
  travels; get NAME brings all parts here later. A node that does not have PATH,
  or fails, is named, and the others' parts are complete; the same command once
  more publishes only what is missing.

Examples:
  gather /scratch/results
  gather --nodes n[01-07] /scratch/run.log logs
  gather --to results-2024/ /scratch/results
""",
    """\
Usage: scatter [--nodes LIST] SOURCE PATH

Hand each node its own part, at a path there.

Options:
  --nodes LIST  Only these nodes, as in n[01-07],n12.

Notes:
  SOURCE is a local directory with a file or directory for each node, named as
  ls_nodes shows it, or else a published name with such parts, as gather makes
  it. A local one is published first, each part on its own node. The copy at
  PATH, which is absolute, is the node's to change: what is in SOURCE/NODE goes
  into PATH, and where SOURCE/NODE is a file, PATH is that file. Files that are
  there are replaced by a rename. Chunks that a node lacks come from the nodes
  that hold them. A node that fails is named, and the others get their part.

Examples:
  scatter results /scratch/restart
  scatter --nodes n[01-07] configuration/ /etc/run
""",
    """\
Usage: get [-f] [--append] [--dry-run] NAME [LOCAL]

Retrieve a published file or directory.

Options:
  -f, --force  Overwrite local files that exist.
  --append     Append the file's bytes to the local file.
  --dry-run    Only say what would move, from which nodes.

Notes:
  Chunks come from all nodes that hold them, in parallel. Modes and times are
  kept. LOCAL is the last component of NAME when it is not given; when it is a
  directory or ends in /, the file goes into it. A local file with the same size
  and time is there already, unless -f is given. After an interruption the same
  command retrieves what is missing.

Examples:
  get data/run.h5
  get -f data/run.h5 /tmp/
  get --append log.2 log.all
""",
    """\
Usage: mget [-f] [--dry-run] PATTERN... [LOCALDIR]

Retrieve all files that match.

Options:
  -f, --force  Overwrite local files that exist.
  --dry-run    Only say what would move, from which nodes.

Notes:
  The last argument is the local directory when it ends in /, is . or .., or
  is a local directory and matches no published name. Below it files keep
  their published directories. A published directory stands for all below it;
  ls says how patterns match.

Examples:
  mget '*.h5'
  mget data/** logs results/
""",
    """\
Usage: cat NAME

Write a published file to standard output, byte for byte.

Examples:
  cat notes.txt
""",
    """\
Usage: read [-f] NAME OFFSET LENGTH LOCAL

Retrieve a part of a published file.

Options:
  -f, --force  Overwrite the local file if it exists.

Notes:
  LOCAL gets the LENGTH bytes from OFFSET on, or those up to the file's end.
  Only the chunks that hold them travel, and each is checked as a whole.

Examples:
  read data/run.h5 0 2048 header.bin
  read -f images.tar 1073741824 65536 /tmp/block
""",
    """\
Usage: h5ls NAME

List what a published HDF5 file holds, with shapes and types.

Notes:
  Only the chunks with its structure travel. This needs h5py: dft[hdf5].

Examples:
  h5ls data/run.h5
""",
    """\
Usage: h5get [-f] DATASET LOCAL

Retrieve a dataset of a published HDF5 file, or a part of it.

Options:
  -f, --force  Overwrite the local file if it exists.

Notes:
  DATASET is NAME:/PATH, and may end in a selection in brackets, as numpy has
  it: indices and slices, one for each axis, and ... for all that are left out.
  LOCAL ends in .npy, or in .h5, in which the dataset keeps its path and its
  attributes. Only the chunks that hold the part travel. This needs h5py:
  dft[hdf5].

Examples:
  h5get data/run.h5:/result/density density.npy
  h5get data/run.h5:/result/density[10:20,:,5] plane.npy
  h5get -f 'data/run.h5:/steps[..., -1]' last.h5
""",
    """\
Usage: ls [-l] [--at-risk] [PATTERN]

List what is published.

Options:
  -l         Show mode, size in bytes, chunks, replicas (the number that every
             chunk has at least in this session, as 1/2 where 2 are wanted),
             time and nodes as well. Nodes that hold chunks and are not in this
             session are marked absent.
  --at-risk  Only files of which a chunk has one replica in this session, or
             none: those that one more lost node would lose.

Notes:
  * and ? stand for any characters and any one within a component, [abc] and
  [!abc] for one of a set or none of it, and ** crosses directories. A
  directory stands for all below it. Where a file is called literally as the
  pattern, that file is meant. Names that a shell would not take as they stand
  are shown quoted, and can be typed so.

Examples:
  ls
  ls -l data
  ls data/**/*.h5
""",
    """\
Usage: ls_nodes

List the nodes with rank, host, store, space and state.

Notes:
  Held are the bytes of the chunks on a node; only here are those of which no
  other node of this session has a replica. A last line tells how many files
  have fewer replicas than are wanted.
""",
    """\
Usage: ls_chunks [-l] [NAME]

List the chunks of files: name, number, size and nodes.

Options:
  -l  Show offset and digest (XXH3-128) as well.

Notes:
  Without NAME, the chunks of all files. NAME may be a pattern or a directory.
  This is what the catalog says; ls_local_chunks asks a node.
""",
    """\
Usage: ls_local_chunks [NODE]

List the chunks that a node's store really holds, with offsets.

Notes:
  Without NODE, the node on the host where this session was started.
""",
    """\
Usage: replicate [--copies K] [--nodes LIST] NAME...

Make further replicas of published files, from node to node.

Options:
  --copies K    Have K replicas of every chunk; without, as many as were wanted
                so far, and at least 2.
  --nodes LIST  Place new replicas on these nodes only, as in n[01-07],n12.

Notes:
  With two replicas a lost node loses no file. They are placed on different
  hosts where there are as many, and spread over the nodes evenly. Replicas on
  nodes that are not in this session do not count. Bytes go from node to node
  and never through the host of the session. NAME may be a pattern or a
  directory.

Examples:
  replicate data/run.h5
  replicate --copies 3 'results/*'
  replicate --nodes n[05-08] model
""",
    """\
Usage: verify [--repair] [NAME...]

Have all nodes read their chunks and compare digests.

Options:
  --repair  Restore what is bad or missing from another replica. The bad bytes
            are kept, in the directory quarantine of the node's store.

Notes:
  Without NAME, all files. NAME may be a pattern or a directory. All nodes read
  at once; a line tells of each chunk that is bad or missing, and of files of
  which no node of this session has some chunks. The exit code is then not 0,
  unless all of it was restored.

Examples:
  verify
  verify --repair data/run.h5 'logs/*'
""",
    *SESSION_TEXTS,
)

#: The text of each command by name, in the order of the manual.
COMMANDS: dict[str, str] = {text.split()[1]: text for text in _TEXTS}

#: The overview; ``{commands}`` stands for a line for each.
OVERVIEW = """\
Commands (help COMMAND tells more; any unambiguous beginning will do):
{commands}
  !command         Run a command in the local shell.

Words are quoted as in a shell: '...', "...", \\ and $'\\n'. A # begins a comment.
After -- nothing is an option: get -- -name
"""
