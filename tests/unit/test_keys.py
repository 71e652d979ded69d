"""Key files are made for one user and refused otherwise; control messages open once and in order."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft import keys
from dft.channel import Channel
from dft.errors import LocalFileError, NotAuthentic

KEY = bytes(range(32))


def test_a_key_file_is_made_and_read(tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "key")
    previous = os.umask(0)
    try:
        keys.make_key_file(path)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(tmp_path / "new").st_mode) == 0o700
    key = keys.read_key_file(path)
    assert len(key) == keys.KEY_SIZE
    with pytest.raises(LocalFileError, match="already: a key is not overwritten"):
        keys.make_key_file(path)
    assert keys.read_key_file(path) == key
    keys.make_key_file(str(tmp_path / "other"))
    assert keys.read_key_file(str(tmp_path / "other")) != key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_key_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    keys.make_key_file(str(path))
    path.chmod(mode)
    with pytest.raises(LocalFileError, match="not yours alone to read"):
        keys.read_key_file(str(path))


@pytest.mark.parametrize(
    "text", [b"", b"dft-key-1", b"dft-key-1 " + b"g" * 64, b"dft-key-1 " + b"0" * 63, b"x" * 500]
)
def test_what_is_not_a_key_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(LocalFileError, match="is not a key file"):
        keys.read_key_file(str(path))
    with pytest.raises(LocalFileError, match="dft keygen makes one"):
        keys.read_key_file(str(tmp_path / "missing"))
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(LocalFileError, match="not yours alone"):
        keys.read_key_file(str(tmp_path / "pipe"))


def test_a_data_server_finds_the_key_file_without_parsing_options() -> None:
    home = {"XDG_CONFIG_HOME": "/conf"}
    assert keys.path_before_options([], home) == "/conf/dft/key"
    assert keys.path_before_options(["-c", "ls"], {**home, "DFT_KEY_FILE": "/k"}) == "/k"
    for words in (["--key-file", "/me"], ["--key-file=/me", "-c", "ls"]):
        assert keys.path_before_options(words, {"DFT_KEY_FILE": "/k"}) == "/me"
    assert not keys.encryption_before_options(["-c", "ls"], {"DFT_ENCRYPT": "off"})
    assert keys.encryption_before_options(["--encrypt=on"], {})
    assert keys.encryption_before_options([], {"DFT_ENCRYPT": "on"})


def channels(salts: bytes = bytes(64), server_key: bytes = KEY) -> tuple[Channel, Channel]:
    return Channel(KEY, salts, 5, is_server=False), Channel(server_key, salts, 5, is_server=True)


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_messages_open_in_the_order_in_which_they_were_sealed(messages: list[bytes]) -> None:
    one, two = channels()
    assert [two.open(one.seal(message)) for message in messages] == messages
    assert [one.open(two.seal(message)) for message in messages] == messages


@given(st.binary(max_size=100), st.integers(0, 10_000), st.integers(1, 255))
def test_an_altered_message_does_not_open(message: bytes, place: int, change: int) -> None:
    one, two = channels()
    sealed = one.seal(message)
    place %= len(sealed)
    altered = bytearray(sealed)
    altered[place] ^= change
    for wrong in (altered, sealed[:place], sealed + b"x", message, b""):
        with pytest.raises(NotAuthentic):
            two.open(wrong)
    assert two.open(sealed) == message, "what was refused changed nothing"


def test_a_message_opens_once_in_its_place_and_direction_and_session() -> None:
    one, two = channels()
    first, second = one.seal(b"first"), one.seal(b"second")
    with pytest.raises(NotAuthentic):
        two.open(second)
    with pytest.raises(NotAuthentic):
        one.open(first)
    two.open(first)
    with pytest.raises(NotAuthentic):
        two.open(first)
    assert two.open(second) == b"second"
    for other in (channels(b"\1" + bytes(63))[1], channels(server_key=bytes(32))[1]):
        with pytest.raises(NotAuthentic, match="is the key file the same on all nodes"):
            other.open(first)
    assert Channel(KEY, bytes(64), 6, is_server=True)._opened == 0
    with pytest.raises(NotAuthentic):
        Channel(KEY, bytes(64), 6, is_server=True).open(first)
