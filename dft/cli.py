"""The ``dft`` program: its role by rank, its signals, its exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dft.mpi_settings import rank_from_launcher
from dft.quick_imports import import_msgspec

if TYPE_CHECKING:
    from dft.metadata_server import MetadataServer
    from dft.options import Options
    from dft.repl import Output
    from dft.terminal_messages import TerminalLink


def main() -> None:
    """Run dft and exit with its code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until each role sees to it: an end without a traceback
    gc.disable()  # while modules are imported there is no garbage, but ever more to look through
    rank = rank_from_launcher()
    sys.exit(_data_server() if rank else _first_process(under_launcher=rank is not None))


def _all_is_imported() -> None:
    """Have garbage collected from here on, but for what stays anyway."""
    gc.freeze()
    gc.enable()


def _ignore_interrupts() -> None:
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _data_server() -> int:
    """Serve on a rank other than 0.  Imports no more than that takes: all ranks start at once."""
    asked = {word.partition("=")[0] for word in sys.argv[1:]}
    if {"-h", "--help", "--version", "--completion"} & asked or sys.argv[1:2] == ["keygen"]:
        return 0  # rank 0 shows a text and leaves
    import_msgspec()
    from dft.data_server import DataServer
    from dft.errors import DftError
    from dft.keys import server_key
    from dft.mpi_engine import Engine, abort
    from dft.progress import Loop

    _ignore_interrupts()  # for rank 0 to decide
    _all_is_imported()
    engine = Engine(Loop())
    server = DataServer(engine, server_key(sys.argv[1:], os.environ))
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    try:
        engine.loop.run(server.serve())
    except DftError as problem:
        print(
            f"dft: rank {engine.rank} on {os.uname().nodename}: {problem.message}",
            file=sys.stderr,
            flush=True,
        )
        abort(problem.exit_code)
    except Exception as problem:
        text = f"{type(problem).__name__}: {problem}"
        print(f"dft: rank {engine.rank}: bug in dft: {text}; please report", file=sys.stderr, flush=True)
        abort(70)
    engine.close()
    if engine.lost:
        os._exit(0)
    return 0


def _first_process(under_launcher: bool) -> int:
    """Be rank 0, or, outside mpirun, the parent of a whole session."""
    import_msgspec()
    from dft.errors import DftError, PeerLost
    from dft.options import ShowCompletion, ShowText, parse_options

    try:
        try:
            options = parse_options(sys.argv[1:], dict(os.environ))
        except ShowCompletion as asked:
            from dft.shell_completion import shell_completion

            raise ShowText(shell_completion(str(asked))) from None
        if options.keygen:
            from dft.keys import make_key_file

            make_key_file(options.key_file)
            raise ShowText(f"a new key, for every node: {options.key_file}\n")
        if not under_launcher:
            from dft.launch import launch

            return launch(options, sys.argv[1:])
    except ShowText as shown:
        print(shown, end="")
        return 0
    except DftError as problem:
        print(f"dft: {problem.message}", file=sys.stderr, flush=True)
        if under_launcher:
            _dismiss()
        return problem.exit_code
    from dft.launcher_input import take_input
    from dft.metadata_server import MetadataServer
    from dft.mpi_engine import Engine, abort
    from dft.progress import Loop
    from dft.repl import Output
    from dft.session_report import take_over
    from dft.terminal_messages import take_terminal

    output = Output(options.json, options.quiet, options.verbose)
    _all_is_imported()
    # Before all that waits for the launcher: MPI ends a process whose mpirun has ended, if it knows of it.
    engine = Engine(Loop())
    try:
        take_input()
        link = take_terminal(os.environ)
    except FileNotFoundError:
        abort(PeerLost.exit_code)  # the launcher has seen this session break, and said so
    reporter, continues = take_over(os.environ)
    server = MetadataServer(engine, options, reporter, continues, _tell_loss)
    signal.signal(signal.SIGINT, lambda *_: server.interrupt())
    signal.signal(signal.SIGUSR1, lambda *_: server.interrupt())
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    try:
        code = _session(server, options, output, link)
    except Exception as problem:
        # Where MPI goes on without a rank, the others would wait for this one for ever.
        text = f"{type(problem).__name__}: {problem}"
        print(f"dft: bug in dft: {text}; please report", file=sys.stderr, flush=True)
        abort(70)
    try:
        server.close()
    except DftError as problem:
        print(f"dft: {problem.message}", file=sys.stderr)
        code = code or problem.exit_code
    sys.stdout.flush()
    if server.broken:
        abort(code or 1)
    if server.lost:
        from dft.launch import code_without

        code = code_without(server.lost, code)
    reporter.ended(code)
    _ignore_interrupts()  # Python takes its handlers away before it ends
    engine.close()
    if engine.lost:
        sys.stderr.flush()
        os._exit(code)
    return code


def _tell_loss(name: str) -> None:
    print(f"dft: lost {name}: the session goes on", file=sys.stderr, flush=True)


def _dismiss() -> None:
    """Have the data servers leave before there is a session.

    mpirun of Open MPI 5 can crash when a rank ends while others are still joining.
    """
    from dft.cluster import Cluster
    from dft.mpi_engine import Engine
    from dft.progress import Loop

    engine = Engine(Loop())
    engine.loop.run(Cluster(engine, segment_size=1, window=1, chunk_size=1).quit())
    engine.close()


def _session(server: MetadataServer, options: Options, output: Output, link: TerminalLink | None) -> int:
    """Run the commands that the options name, or those that come in; return the exit code."""
    from dft.errors import DftError
    from dft.grammar import script_lines
    from dft.quoting import split_commands
    from dft.repl import LineReader, run_interactive, run_reply, run_script

    try:
        commands: Iterable[tuple[int, str]] | None = None
        source = options.script or "-c"
        if options.commands is not None:
            commands = enumerate(split_commands(options.commands), start=1)
        elif options.script == "-":
            commands = LineReader(server, 0)
        elif options.script is not None:
            commands = script_lines(_read(options.script))
        if options.rebuild:
            return run_reply(server.rebuild, output)
        server.start()
    except DftError as problem:
        print(f"dft: {problem.message}", file=sys.stderr)
        return problem.exit_code
    if commands is None:
        return run_interactive(server, output, server.continues, link)
    return run_script(server, commands, options.keep_going, output, source, server.continues, link)


def _read(path: str) -> bytes:
    from dft.errors import LocalFileError

    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as problem:
        raise LocalFileError(f"cannot read the script {path}: {problem.strerror}") from problem
