"""Keys: the file that holds a user's, and what is derived from it for one session.

A key file is one line, ``dft-key-1`` and 64 hexadecimal digits: 256 random bits.  Whoever can read it can
read and write in the sessions that use it, so one that others may read is refused.  The ``cryptography``
package, which takes longer to import than all of a data server, is imported when a key is first used.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dft.errors import LocalFileError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

#: Bytes of every key, and of the random numbers that make a session's keys its own.
KEY_SIZE = 32
#: Bytes that AES-GCM adds to what it encrypts.
SEAL_SIZE = 16
#: The environment variable that names the key file.
VARIABLE = "DFT_KEY_FILE"

_LINE = re.compile(rb"dft-key-1 ([0-9a-f]{64})\n?")


def default_path(environment: Mapping[str, str]) -> str:
    """Return where a user's key file lies who has named none."""
    return os.path.join(environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "dft", "key")


def path_before_options(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the key file's path for a data server, which gets the same command line without parsing it."""
    path = environment.get(VARIABLE) or default_path(environment)
    for word, after in zip(arguments, [*arguments[1:], ""], strict=False):
        if word.startswith("--key-file="):
            path = word.partition("=")[2]
        elif word == "--key-file":
            path = after
    return os.path.expanduser(path)


def encryption_before_options(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether this session may be meant to be encrypted, as far as a data server can see."""
    named = any(word.startswith("--encrypt") for word in arguments)
    return named or environment.get("DFT_ENCRYPT", "off") not in ("", "off")


def server_key(arguments: Sequence[str], environment: Mapping[str, str]) -> bytes | None:
    """Return a data server's key; empty: it may need one and has none; None: it will not need one."""
    path = path_before_options(arguments, environment)
    try:
        return read_key_file(path)
    except LocalFileError:
        meant = encryption_before_options(arguments, environment) or os.path.lexists(path)
        return b"" if meant else None


def make_key_file(path: str) -> None:
    """Write a new key for this user alone; LocalFileError when it cannot be, or is there already."""
    try:
        directory = os.path.dirname(path)
        if directory:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # whatever the umask
            file.write(b"dft-key-1 %s\n" % os.urandom(KEY_SIZE).hex().encode())
    except FileExistsError as problem:
        raise LocalFileError(f"there is a file {path} already: a key is not overwritten") from problem
    except OSError as problem:
        raise LocalFileError(f"cannot write the key file {path}: {problem.strerror}") from problem


def read_key_file(path: str) -> bytes:
    """Return the key in a file; LocalFileError unless it is whole, and for this user's eyes alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            info, text = os.fstat(descriptor), file.read(200)
    except OSError as problem:
        raise LocalFileError(
            f"cannot read the key file {path}: {problem.strerror}; dft keygen makes one"
        ) from problem
    if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
        raise LocalFileError(
            f"the key file {path} is not yours alone to read: chown it to you and chmod 600 it"
        )
    match = _LINE.fullmatch(text)
    if match is None:
        raise LocalFileError(f"{path} is not a key file; dft keygen makes one")
    return bytes.fromhex(match[1].decode())


def need_cryptography() -> None:
    """Import what encryption takes; UsageError names the way out where it is not installed."""
    try:
        import cryptography.hazmat.primitives.ciphers.aead  # noqa: F401
    except ImportError as problem:
        raise UsageError(
            "encryption needs the cryptography package: pip install 'dft[encrypt]' on every node"
        ) from problem


def cipher(secret: bytes, salt: bytes, purpose: bytes) -> AESGCM:
    """Return AES-256-GCM with a key for one purpose, derived by HKDF with SHA-256 (RFC 5869)."""
    need_cryptography()
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return AESGCM(HKDF(SHA256(), KEY_SIZE, salt, b"dft 1 " + purpose).derive(secret))


def nonce(number: int) -> bytes:
    """Return the nonce of message ``number`` of its key; a key sees no number twice."""
    return number.to_bytes(12, "big")
