from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from dft.errors import InUse, StoreError
from dft.locks import OwnerLock


def test_a_lock_serves_others_with_their_own_words(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = OwnerLock.acquire(path, "the store s", "take another", StoreError)
    assert path.read_text() == f"{socket.gethostname()} {os.getpid()}\n"
    with pytest.raises(InUse, match=rf"^the store s is in use by process {os.getpid()} on .*: take another$"):
        OwnerLock.acquire(path, "the store s", "take another", StoreError)
    lock.release()
    lock.release()
    OwnerLock.acquire(path, "the store s", "take another", StoreError).release()


def test_a_lock_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / "lock").symlink_to("precious")
    with pytest.raises(StoreError, match="the store s cannot be locked"):
        OwnerLock.acquire(tmp_path / "lock", "the store s", "take another", StoreError)
    assert (tmp_path / "precious").read_text() == "x"
