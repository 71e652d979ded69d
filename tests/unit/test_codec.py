"""What the codec makes of segments comes back as it was, or is refused."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from dft import codec as codec_module
from dft.codec import AUTO, OFF, ON, ROOM, Codec, Coding, Opener, Sealer
from dft.errors import DftError, NotAuthentic, ProtocolError
from tests.unit.stream_ends import codings

SECRET = bytes(range(32))
STREAM, PART = 77, 3


def with_coding(coding: Coding) -> Codec:
    codec = Codec()
    codec.switch(coding)
    return codec


def sealed(sealer: Sealer | None, segments: list[bytes]) -> list[bytes]:
    assert sealer is not None
    wires = []
    for segment in segments:
        buffer = memoryview(bytearray(len(segment) + ROOM))
        wires.append(bytes(buffer[: sealer.seal(memoryview(segment), buffer)]))
    return wires


def opened(opener: Opener | None, wires: list[bytes], lengths: list[int]) -> list[bytes]:
    assert opener is not None
    return [bytes(opener.open(memoryview(wire), n)) for wire, n in zip(wires, lengths, strict=True)]


contents = st.binary(min_size=1, max_size=60) | st.integers(1, 4000).map(lambda n: b"dft " * n)


@given(codings(), st.lists(contents, max_size=8))
def test_segments_come_back_as_they_were(coding: Coding, segments: list[bytes]) -> None:
    codec = with_coding(coding)
    lengths = [len(segment) for segment in segments]
    if coding.compress == OFF and not coding.secret:
        assert codec.sealer(STREAM, PART) is None and codec.opener(STREAM, PART) is None
        return
    wires = sealed(codec.sealer(STREAM, PART), segments)
    assert opened(codec.opener(STREAM, PART), wires, lengths) == segments


@given(st.lists(contents, max_size=5))
def test_where_lengths_must_be_known_they_are(segments: list[bytes]) -> None:
    codec = with_coding(Coding(ON, True, SECRET))
    wires = sealed(codec.sealer(STREAM, PART, fixed=True), segments)
    assert [len(w) for w in wires] == [len(s) + codec.overhead(i) for i, s in enumerate(segments)]
    lengths = [len(segment) for segment in segments]
    assert opened(codec.opener(STREAM, PART, fixed=True), wires, lengths) == segments
    plain = with_coding(Coding(ON))
    assert plain.sealer(1, fixed=True) is None and plain.opener(1, fixed=True) is None
    assert plain.overhead(0) == 0


def test_each_of_a_thousand_altered_segments_is_refused() -> None:
    rng = random.Random(20)
    segments = [rng.randbytes(300), b"dft " * 90, rng.randbytes(17), b"\0" * 500]
    codec = with_coding(Coding(ON, True, SECRET))
    wires = sealed(codec.sealer(STREAM, PART), segments)
    lengths = [len(segment) for segment in segments]
    how = Counter()
    for case in range(1000):
        number = rng.randrange(len(wires))
        kind = ("bit", "byte", "cut", "longer", "repeated", "swapped", "other stream", "other key")[case % 8]
        altered, where, secret = list(wires), (STREAM, PART), SECRET
        victim = bytearray(wires[number])
        if kind == "bit":
            victim[rng.randrange(len(victim))] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            victim[rng.randrange(len(victim))] ^= rng.randrange(1, 256)
        elif kind == "cut":
            del victim[rng.randrange(len(victim)) :]
        elif kind == "longer":
            victim += rng.randbytes(rng.randrange(1, 40))
        elif kind == "repeated":
            victim = bytearray(wires[number - 1])
        elif kind == "swapped":
            altered[number - 1], victim = wires[number], bytearray(wires[number - 1])
        elif kind == "other stream":
            where = rng.choice([(STREAM + 1, PART), (STREAM, PART - 1)])
        else:
            secret = rng.randbytes(32)
        altered[number] = bytes(victim)
        opener, good = Opener(secret, *where), 0
        with pytest.raises((NotAuthentic, ProtocolError)):
            for wire, segment in zip(altered, segments, strict=True):
                # What is let through until then is what was sent.
                assert bytes(opener.open(memoryview(wire), len(segment))) == segment
                good += 1
        assert good < len(segments)
        how[kind] += 1
    assert sum(how.values()) == 1000
    # The same wires, untouched, open.
    assert opened(codec.opener(STREAM, PART), wires, lengths) == segments


def test_no_two_streams_have_a_key_in_common() -> None:
    codec = with_coding(Coding(OFF, True, SECRET))
    one, two = (sealed(codec.sealer(STREAM, PART), [b"the same words"] * 2) for _ in range(2))
    assert len({*one, *two}) == 4
    # A segment of one of them does not open in the other's place.
    with pytest.raises(NotAuthentic):
        opened(codec.opener(STREAM, PART), [one[0], two[1]], [14, 14])


@given(st.binary(max_size=200), st.integers(1, 300), st.sampled_from([b"", SECRET]))
@settings(max_examples=300)
def test_whatever_comes_is_refused_in_order(wire: bytes, length: int, secret: bytes) -> None:
    try:
        found = Opener(secret, STREAM, PART).open(memoryview(wire), length)
    except (NotAuthentic, ProtocolError):
        return
    assert not secret and len(found) == length


@pytest.mark.parametrize("claims", [True, False])
def test_a_segment_that_would_unpack_to_more_takes_no_memory(
    claims: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = b"\1" + zstandard.ZstdCompressor(write_content_size=claims).compress(bytes(100 << 20))
    monkeypatch.setattr(zstandard, "ZstdDecompressor", lambda: pytest.fail("it was unpacked"), raising=True)
    opener = Opener(b"", STREAM, PART)
    opener._decompressor = object()
    with pytest.raises(ProtocolError, match="unpacks to"):
        opener.open(memoryview(bomb), 1 << 20)


def test_a_frame_that_lies_about_its_length_is_refused() -> None:
    honest = zstandard.ZstdCompressor(write_content_size=True).compress(b"x" * 1000)
    at = honest.index((1000 - 256).to_bytes(2, "little"))
    for claimed in (900, 1100):
        forged = b"\1" + honest[:at] + (claimed - 256).to_bytes(2, "little") + honest[at + 2 :]
        with pytest.raises(ProtocolError, match="malformed"):
            Opener(b"", STREAM, PART).open(memoryview(forged), claimed)


def forms(sealer: Sealer | None, segments: list[bytes]) -> list[int]:
    return [wire[0] for wire in sealed(sealer, segments)]


def test_auto_leaves_out_what_does_not_get_shorter_and_tries_again_later() -> None:
    codec, rng = with_coding(Coding(AUTO)), random.Random(3)
    noise, text = rng.randbytes(4000), b"all work and no play " * 200
    after = [text] * (codec_module._SKIPPED + 2)
    assert forms(codec.sealer(1), [text, noise, *after]) == [1, 0] + [0] * codec_module._SKIPPED + [1, 1]
    # Told to, it compresses whatever gets shorter at all.
    codec.switch(Coding(ON))
    assert forms(codec.sealer(1), [text, noise, text]) == [1, 0, 1]


def test_auto_does_not_compress_for_a_wire_that_is_faster() -> None:
    codec, text = with_coding(Coding(AUTO)), b"all work and no play " * 200
    codec.byte_time = 1e-15
    assert forms(codec.sealer(1), [text] * 4)[1:] == [0, 0, 0]
    codec.byte_time = 1.0
    assert forms(codec.sealer(1), [text] * 4) == [1, 1, 1, 1]


@pytest.mark.parametrize("coding", [Coding("zip"), Coding(ON, True, b"short"), Coding("", True, b"")])
def test_a_coding_out_of_range_is_refused(coding: Coding) -> None:
    with pytest.raises(ProtocolError):
        coding.check()


@pytest.mark.parametrize(
    "coding, package", [(Coding(ON), "zstandard"), (Coding(OFF, True, SECRET), "cryptography")]
)
def test_a_missing_package_is_named_with_its_extra(
    coding: Coding, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = "cryptography.hazmat.primitives.ciphers.aead" if package == "cryptography" else package
    monkeypatch.setitem(__import__("sys").modules, missing, None)
    codec = Codec()
    with pytest.raises(DftError, match=rf"needs the {package} package: pip install 'dft\["):
        codec.switch(coding)
    assert codec.coding == Coding()
