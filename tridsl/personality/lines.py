"""Records as lines of text: `{"format":1,"kind":"trial","id":"…","record":{…}}`, in journals and in bundles.

Nothing that is read is trusted: a line has a longest length, its record is decoded into its types with their limits, and its
identity must be the hash of what it says. Whatever fails one of these is skipped, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, Literal, NamedTuple

import msgspec

from tridsl.personality.evidence import Forget, Pin, Record, Trial, encode, identity
from tridsl.personality.fingerprint import Fingerprint

FORMAT = 1
"""A line of a higher format is left to a newer version of tridsl."""

LONGEST = 1 << 20
"""Bytes of a line, with its end."""

Fault = Literal["torn", "damaged", "oversized", "newer", "foreign"]
"""`torn`: cut off at the end of the file. `foreign`: well-formed, but of no kind that belongs here."""

_KINDS: dict[str, type[Record]] = {"trial": Trial, "pin": Pin, "forget": Forget, "machine": Fingerprint}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_DECODERS = {name: msgspec.json.Decoder(kind) for name, kind in _KINDS.items()}


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    kind: str = ""
    id: str = ""
    record: msgspec.Raw = msgspec.Raw(b"")


_ENVELOPE = msgspec.json.Decoder(_Envelope)


class Unusable(Exception):
    """A line that does not count: `fault`, and why in a few words."""

    def __init__(self, fault: Fault, why: str) -> None:
        super().__init__(why)
        self.fault: Fault = fault


class Skipped(NamedTuple):
    """A line that was left out: where it begins, in bytes."""

    offset: int
    fault: Fault
    why: str

    @property
    def text(self) -> str:
        return f"the line at byte {self.offset} is {self.fault}: {self.why}"


class Piece(NamedTuple):
    """A stretch of a file: a line without its end, or None for one that is too long. `end`: the byte after it."""

    offset: int
    end: int
    line: bytes | None
    terminated: bool


def write(record: Record) -> bytes:
    """The line of a record, with its end. Raises ValueError for one that would not be read again."""
    body = encode(record)
    name = _NAMES[type(record)]
    try:
        again = _DECODERS[name].decode(body)
    except msgspec.MsgspecError as problem:
        raise ValueError(f"no record of the personality: {problem}") from None
    if again != record:
        raise ValueError("no record of the personality: it has numbers that JSON has not")
    line = b'{"format":%d,"kind":"%s","id":"%s","record":%s}\n' % (FORMAT, name.encode(), identity(record).encode(), body)
    if len(line) > LONGEST:
        raise ValueError(f"a record of {len(line)} bytes; at most {LONGEST} are kept")
    return line


def read(line: bytes) -> tuple[str, Record]:
    """Identity and record of a line. Raises Unusable."""
    try:
        envelope = _ENVELOPE.decode(line)
    except (ValueError, RecursionError) as problem:  # msgspec's errors are ValueErrors
        raise Unusable("damaged", _plain(problem)) from None
    if envelope.format > FORMAT:
        raise Unusable("newer", f"its format is {_plain(envelope.format)}, this version of tridsl reads up to {FORMAT}")
    if envelope.format != FORMAT or envelope.kind not in _DECODERS:
        raise Unusable("foreign", f"no record of kind `{_plain(envelope.kind)}` is known")
    try:
        record = _DECODERS[envelope.kind].decode(envelope.record)
    except (ValueError, RecursionError) as problem:
        raise Unusable("damaged", _plain(problem)) from None
    if identity(record) != envelope.id:
        raise Unusable("damaged", "what it says does not match its hash")
    return envelope.id, record


def pieces(stream: BinaryIO, start: int = 0) -> Iterator[Piece]:
    """The lines of a file from byte `start` on, however long they are, in little memory."""
    stream.seek(start)
    offset = start
    while line := stream.readline(LONGEST):
        end, kept = offset + len(line), True
        while not line.endswith(b"\n") and (more := stream.readline(LONGEST)):
            line, end, kept = more, end + len(more), False
        terminated = line.endswith(b"\n")
        yield Piece(offset, end, line.removesuffix(b"\n") if kept else None, terminated)
        offset = end


def judge(piece: Piece) -> tuple[str, Record]:
    """`read` for a piece. Raises Unusable."""
    if piece.line is None:
        raise Unusable("oversized", f"it has {piece.end - piece.offset} bytes, at most {LONGEST} are read")
    if not piece.terminated:
        raise Unusable("torn", "it was not written to its end")
    return read(piece.line)


def _plain(problem: object) -> str:
    """The reason, short and without what a terminal would obey."""
    try:
        text = str(problem)
    except ValueError:  # an integer of more digits than Python prints
        text = "a number without bounds"
    return re.sub(r"[^ -~]", "?", text)[:200]
