"""What rank 0 writes for the launcher's terminal arrives whole, in order, however it is cut."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dft.replies import Progress
from dft.terminal_messages import ERR, NAMES, OUT, PROGRESS, READY, MessageReader, Ready, Shown, TerminalLink


def read_all(descriptor: int, into: bytearray) -> None:
    while data := os.read(descriptor, 1000):
        into += data


@given(st.lists(st.tuples(st.sampled_from([OUT, ERR, NAMES]), st.binary(max_size=300))), st.integers(1, 97))
def test_messages_survive_any_cut(messages: list[tuple[int, bytes]], size: int) -> None:
    reader, writer = os.pipe()
    link, wire = TerminalLink(writer, True), bytearray()
    thread = threading.Thread(target=read_all, args=(reader, wire))
    thread.start()
    for kind, body in messages:
        link.send(kind, body)
    os.close(writer)
    thread.join()
    os.close(reader)
    cutter = MessageReader()
    found = [
        one for start in range(0, len(wire), size) for one in cutter.feed(bytes(wire[start : start + size]))
    ]
    assert found == messages


def test_progress_is_left_out_where_it_would_have_to_wait() -> None:
    reader, writer = os.pipe()
    link = TerminalLink(writer, False)
    progress = Progress(1, 2, 1.0, 1, None)
    for _ in range(10_000):  # more than any pipe holds, and nobody reads
        link.progress("put a", progress)
    os.set_blocking(reader, False)
    kinds = dict(MessageReader().feed(os.read(reader, 1000)))
    assert msgspec.msgpack.decode(kinds[PROGRESS], type=Shown) == Shown("put a", progress)
    os.close(reader)
    os.close(writer)


PROGRAM = """
import os, sys
from dft.terminal_messages import take_terminal
link = take_terminal(os.environ)
assert "DFT_TERMINAL" not in os.environ and link.prompts
print("before", end="", flush=True)
sys.stdout.buffer.write(b"\\xff\\n")
print("caf\\udce9", file=sys.stderr)
sys.stdout.flush()
link.ready(["n1"])
"""


def test_a_process_shows_its_output_through_the_launcher(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "terminal"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    environ = {**os.environ, "DFT_TERMINAL": str(path), "DFT_PROMPT": "1"}
    subprocess.run([sys.executable, "-c", PROGRAM], env=environ, check=True, cwd=tmp_path)
    found = list(MessageReader().feed(os.read(descriptor, 1 << 16)))
    assert b"".join(body for kind, body in found if kind == OUT) == b"before\xff\n"
    assert b"".join(body for kind, body in found if kind == ERR) == b"caf\xe9\n"
    kind, body = found[-1]
    assert kind == READY
    assert msgspec.msgpack.decode(body, type=Ready) == Ready(os.fsencode(tmp_path), ["n1"])
    os.close(descriptor)
