"""Records of the personality: what was measured, where, and what came of it. Values only; their hash is their identity.

A record is never changed. What is to be believed follows from the set of records (`belief`), so two stores are merged by
taking both sets.
"""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Literal, TypeAlias

import msgspec

from tridsl.ir.op import Op
from tridsl.ir.serial import to_json
from tridsl.personality.candidate import Candidate, Name, Whole
from tridsl.personality.fingerprint import Facts, Fingerprint, Hashes
from tridsl.structs import replace

Outcome = Literal["ok", "compile_error", "wrong_result", "timeout", "crash", "device_lost", "skipped"]
"""`skipped`: not run, for a reason that is no fault of the candidate (no time left, refused by a bound)."""

FAILURES: frozenset[Outcome] = frozenset(("compile_error", "wrong_result", "timeout", "crash", "device_lost"))

Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
Samples: TypeAlias = Annotated[tuple[Seconds, ...], msgspec.Meta(max_length=100_000)]
Id: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
Note: TypeAlias = Annotated[str, msgspec.Meta(max_length=4000)]
Pairs: TypeAlias = Annotated[tuple[tuple[Name, Name], ...], msgspec.Meta(max_length=200)]


class Key(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What was measured. The candidates that were considered are not in it: one more keeps all evidence.

    `kernel`: `meaning(op)`. `op`: its name, for reading only. `bucket`: of `schedule.shapes.bucket`. `dtypes` and `layouts`: by
    parameter, in the op's order (a layout is `row`, a codec's name, or strides as text). `device`: as users name it.
    """

    kernel: Id
    op: Name
    bucket: Name
    dtypes: Pairs = ()
    layouts: Pairs = ()
    device: Name = "cpu"
    fingerprint: Hashes

    @property
    def subject(self) -> str:
        """The key without the op's name and the fingerprint, and without a device's number (`gpu:1` is told from `gpu:0` by its
        fingerprint, and numbers change when a card is added): 32 hexadecimal digits. Evidence is kept by it."""
        place = ":".join(part for part in self.device.split(":") if not part.isdigit())
        return _hash(_ENCODER.encode((self.kernel, self.bucket, self.dtypes, self.layouts, place)))

    @property
    def text(self) -> str:
        """`matmul K=64 M=512 (f32) on cpu`."""
        types = sorted({dtype for _, dtype in self.dtypes})
        return f"{self.op} {self.bucket}".rstrip() + (f" ({', '.join(types)})" if types else "") + f" on {self.device}"


class Pairing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The block in which a candidate and the incumbent were run in turns.

    `samples`: the incumbent's, in seconds; sample i was taken beside the candidate's sample i. Every trial carries both
    sides, so that one that is lost takes nothing from another. `block`: any text that is one block's own.
    """

    block: Name
    incumbent: Candidate
    samples: Samples = ()


class Trial(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One candidate in one block.

    `sizes`: the exact ones, by name. `samples`: seconds per launch, in the order taken. `operating`: facts of the operating
    point (`fingerprint.operating_point`, and what else the measurer knows, such as the bench lock). `launch_seconds`,
    `transfer_seconds`, `compile_seconds`: medians, beside the samples and not in them. `launcher`: whether the device's
    context was open before. `code`: hash of the machine code. `measurer`: version of what measured. `origin`: `""` for
    measured here, else where it was imported from; outside the identity. `time`: seconds since 1970, UTC.

    Raises ValueError for `ok` without samples, samples without `ok`, and a failure or a skip without reason.
    """

    key: Key
    sizes: Annotated[tuple[tuple[Name, Whole], ...], msgspec.Meta(max_length=200)] = ()
    candidate: Candidate
    outcome: Outcome
    reason: Note = ""
    samples: Samples = ()
    pairing: Pairing | None = None
    operating: Facts = ()
    launch_seconds: Seconds | None = None
    transfer_seconds: Seconds | None = None
    compile_seconds: Seconds | None = None
    launcher: Literal["warm", "cold"] = "warm"
    code: Name = ""
    measurer: Name
    time: Annotated[float, msgspec.Meta(ge=0, le=1e11)]
    origin: Name = ""

    def __post_init__(self) -> None:
        if (self.outcome == "ok") != bool(self.samples):
            raise ValueError(f"outcome {self.outcome} with {len(self.samples)} samples")
        if self.outcome != "ok" and not self.reason:
            raise ValueError(f"outcome {self.outcome} without a reason")
        if not all(map(math.isfinite, self.samples)):
            raise ValueError("a sample is not finite")

    @property
    def id(self) -> str:
        return identity(self)


class Pin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The user's choice for a subject; wins over all evidence until it is forgotten. The latest pin of a subject holds."""

    key: Key
    candidate: Candidate
    time: Annotated[float, msgspec.Meta(ge=0, le=1e11)]

    @property
    def id(self) -> str:
        return identity(self)


class Forget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The named records of a subject (of this `kernel`) no longer count. They stay where they are: forgetting is a record too."""

    kernel: Id
    subject: Id
    ids: Annotated[tuple[Id, ...], msgspec.Meta(min_length=1, max_length=20_000)]
    time: Annotated[float, msgspec.Meta(ge=0, le=1e11)]

    @property
    def id(self) -> str:
        return identity(self)


Record: TypeAlias = Trial | Pin | Forget | Fingerprint

_ENCODER = msgspec.json.Encoder()


def encode(record: Record) -> bytes:
    """Compact JSON; equal records give equal bytes."""
    return _ENCODER.encode(record)


def identity(record: Record) -> str:
    """32 hexadecimal digits of what the record says. Where a trial was imported from is not part of it, so that the same trial
    is the same in every store."""
    bare = msgspec.structs.replace(record, origin="") if isinstance(record, Trial) and record.origin else record
    return _hash(type(record).__name__.encode() + b" " + encode(bare))


def subject_of(record: Trial | Pin | Forget) -> str:
    return record.subject if isinstance(record, Forget) else record.key.subject


def meaning(op: Op) -> str:
    """Hash of what `op` computes: everything but its name, its documentation and places in the text. 32 hexadecimal digits."""
    return _hash(to_json(replace(op, name="", doc="")))


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
