"""The docopt texts of the commands that are about the session itself: see ``command_texts``."""

from __future__ import annotations

SESSION_TEXTS = (
    """\
Usage: set SWITCH VALUE

Switch compression, encryption or checks for all transfers to come.

Notes:
  compress on   Segments are compressed (zstandard), those that get shorter;
                auto: where it pays, by what it saves and the wire's speed.
  encrypt on    Segments and messages are encrypted (AES-256-GCM) with keys of
                this session alone, made from the key file of every node.
                Messages stay encrypted after encrypt off.
  checksum off  Nodes take what arrives without checking its digests, which
                are stored with it all the same; a get still checks them.
  Options and variables set them from the start: dft --help. mode shows them.

Examples:
  set compress auto
  set encrypt on
""",
    """\
Usage: mode

Show what is switched how.
""",
    """\
Usage: lcd [DIR]

Change the local directory; without DIR, to the home directory.
""",
    """\
Usage: lpwd

Show the local directory.
""",
    """\
Usage: help [COMMAND]

Show the commands, or how one of them is used.
""",
    """\
Usage: quit

End the session; exit and the end of input do the same.
""",
)
