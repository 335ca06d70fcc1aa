"""Keys, buckets, candidates and trials as values: round trips, limits, identities."""

from __future__ import annotations

import math
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.personality.makers import HERE, KERNEL, NEWER, failed, key, ok, tiled
from tridsl.dtypes import BF16, F32
from tridsl.ir.expr import Var
from tridsl.ir.op import Op, Tensor
from tridsl.personality.candidate import Candidate, candidate
from tridsl.personality.evidence import Forget, Pin, Record, Trial, encode, identity, meaning
from tridsl.personality.lines import Unusable, read, write
from tridsl.schedule import steps
from tridsl.schedule.shapes import bucket
from tridsl.schedule.steps import (
    At,
    Beside,
    Bind,
    BlockBy,
    Fuse,
    Grid,
    Inline,
    Intrin,
    Layout,
    Lines,
    Order,
    Pack,
    Pad,
    Parallel,
    Parts,
    Pipeline,
    Planes,
    Schedule,
    Slide,
    Split,
    StoreIn,
    Tile,
    Unit,
    Unroll,
    Vector,
)  # fmt: skip

names = st.text(min_size=1, max_size=12)
wholes = st.integers(0, (1 << 63) - 1)
sized = st.lists(st.tuples(names, wholes), max_size=4).map(tuple)
named = st.lists(st.tuples(names, names), max_size=4).map(tuple)

STEPS: tuple[st.SearchStrategy[Any], ...] = (
    st.builds(Tile, stage=names, sizes=sized),
    st.builds(Pad, stage=names, axis=names, factor=wholes, kept=st.booleans()),
    st.builds(Parts, stage=names, axis=names, factor=wholes, into=st.none() | names, inside=st.none() | names),
    st.builds(Split, stage=names, axis=names, factor=wholes, tail=st.none() | names),
    st.builds(Fuse, stage=names, outer=names, inner=names),
    st.builds(Order, stage=names, axes=st.lists(names, max_size=4).map(tuple)),
    st.builds(Parallel, stage=names, axis=names),
    st.builds(Vector, stage=names, axis=names),
    st.builds(Unroll, stage=names, axis=names, factor=st.none() | wholes),
    st.builds(Bind, stage=names, axes=named),
    st.builds(At, stage=names, consumer=names, axis=names),
    st.builds(Slide, stage=names, consumer=names, axis=names),
    st.builds(Lines, stage=names, consumer=names, axis=names),
    st.builds(Beside, stage=names, other=names, axis=names),
    st.builds(Inline, stage=names),
    st.builds(
        StoreIn, stage=names, space=names, at=st.none() | names, buffers=wholes, pad=wholes, type=st.none() | st.sampled_from((F32, BF16)), piece=wholes,
        kept=st.none() | names, turned=st.booleans(), strips=st.none() | names,
    ),
    st.builds(
        Pack, stage=names, at=names, reader=st.none() | names, place=st.none() | wholes, type=st.none() | st.sampled_from((F32, BF16)),
        interleave=wholes, rows=st.booleans(),
    ),
    st.builds(Planes, stage=names, parts=wholes),
    st.builds(Unit, stage=names, axis=names),
    st.builds(BlockBy, stage=names, axis=names, factor=wholes, at=st.none() | names, tail=st.none() | names),
    st.builds(Layout, stage=names, axes=st.lists(names, max_size=4).map(tuple)),
    st.builds(Intrin, stage=names, name=names),
    st.builds(Pipeline, stage=names, depth=wholes, at=st.none() | names, reader=st.none() | names, around=st.none() | names, stagger=st.none() | names),
    st.builds(Grid, stage=names, axes=sized),
)
schedules = st.lists(st.one_of(*STEPS), max_size=6).map(tuple)
values = st.one_of(wholes, st.booleans(), st.floats(allow_nan=False, allow_infinity=False), names, st.sampled_from((F32, BF16)))
points = st.dictionaries(names, values, max_size=4)


def test_every_step_is_drawn() -> None:
    assert len(STEPS) == len(get_args(steps.Step)), "a step was added: draw it here too"


@given(schedules, points)
def test_candidates_round_trip(schedule: Schedule, point: dict[str, Any]) -> None:
    made = candidate(schedule, point)
    again = msgspec.json.decode(msgspec.json.encode(made), type=Candidate)
    assert again == made
    assert hash(again) == hash(made)
    assert again.id == made.id
    assert again.schedule == schedule
    assert again.values == point
    assert {name: type(value) for name, value in again.values.items()} == {name: type(value) for name, value in point.items()}


@given(schedules, schedules)
def test_identity_is_equality(one: Schedule, other: Schedule) -> None:
    assert (candidate(one).id == candidate(other).id) == (one == other)


@pytest.mark.parametrize(
    "step",
    [
        {"step": "Split", "stage": "C", "axis": "k"},
        {"step": "Split", "stage": "C", "axis": "k", "factor": True},
        {"step": "Split", "stage": "C", "axis": "k", "factor": 2.5},
        {"step": "Split", "stage": "C", "axis": "k", "factor": -1},
        {"step": "Split", "stage": "C", "axis": "k", "factor": 1 << 63},
        {"step": "Split", "stage": "C", "axis": "k", "factor": 2, "span": None},
        {"step": "Split", "stage": ["C"], "axis": "k", "factor": 2},
        {"step": "Split", "stage": "C" * 401, "axis": "k", "factor": 2},
        {"step": "Tile", "stage": "C", "sizes": [["i", 2, 3]]},
        {"step": "StepBase", "stage": "C"},
        {"step": "os.system", "stage": "C"},
        {"stage": "C"},
        [],
    ],
)
def test_other_steps_are_refused(step: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({"steps": [step]}), type=Candidate)


def test_a_candidate_out_of_range_is_not_made() -> None:
    with pytest.raises(ValueError):
        candidate((Split(stage="C", axis="k", factor=-4),))
    with pytest.raises(ValueError):
        candidate((), {"x": math.inf})


def test_unknown_element_type_of_a_tunable() -> None:
    made = msgspec.json.decode(b'{"point":[["T",{"dtype":"f33"}]]}', type=Candidate)
    with pytest.raises(ValueError, match="f33"):
        _ = made.values


def test_candidates_in_words() -> None:
    assert tiled(12).text == "size=12"
    assert candidate((Split(stage="C", axis="k", factor=8), Inline(stage="g"))).text == "C.split(k, 8); g.inline()"
    assert candidate((Tile(stage="C", sizes=(("i", 2), ("j", 3))),)).text == "C.tile(i=2, j=3)"
    assert candidate(()).text == "no steps"
    assert tiled(8).simplicity < tiled(8, extra=1).simplicity < tiled(8, extra=3).simplicity


def test_defaults_are_left_out_so_that_steps_may_grow() -> None:
    assert encode_candidate(candidate((StoreIn(stage="e", space="l1"),))) == b'{"steps":[{"step":"StoreIn","stage":"e","space":"l1"}]}'


def encode_candidate(made: Candidate) -> bytes:
    return msgspec.json.encode(made)


# Buckets ---------------------------------------------------------------------------------------------------------------


def test_static_sizes_are_exact() -> None:
    assert bucket({"N": 4096, "M": 500}) == "M=500 N=4096"
    assert bucket({}) == ""


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "N~0"), (7, "N~7"), (16, "N~16"), (17, "N~2^4/1"), (31, "N~2^4/1"), (48, "N~2^5/16"), (512, "N~2^9/64"),
     (1000, "N~2^9/8"), (1023, "N~2^9/1"), (1024, "N~2^10/64"), ((1 << 40) + 6, "N~2^40/2")],
)  # fmt: skip
def test_dynamic_sizes_share_a_bucket(size: int, text: str) -> None:
    assert bucket({"N": size}, ("N",)) == text


@given(st.integers(17, 1 << 40), st.integers(17, 1 << 40))
def test_a_bucket_is_an_octave_and_a_divisibility(one: int, other: int) -> None:
    def description(size: int) -> tuple[int, int]:
        return math.floor(math.log2(size)), max(d for d in (1, 2, 4, 8, 16, 32, 64) if size % d == 0)

    same = bucket({"N": one}, ("N",)) == bucket({"N": other}, ("N",))
    assert same == (description(one) == description(other))


def test_a_negative_size_is_our_mistake() -> None:
    with pytest.raises(ValueError):
        bucket({"N": -1})


# Keys ------------------------------------------------------------------------------------------------------------------


def test_subjects() -> None:
    base = key()
    replaced = msgspec.structs.replace
    assert replaced(base, op="mm").subject == base.subject, "a new name keeps the evidence"
    assert replaced(base, fingerprint=NEWER.hashes).subject == base.subject, "new software keeps the evidence"
    others = [
        replaced(base, bucket="K=64 M=513"),
        replaced(base, kernel="cd" * 16),
        replaced(base, dtypes=(("A", "bf16"),)),
        replaced(base, layouts=(("A", "t16"),)),
        replaced(base, device="gpu"),
        replaced(base, device="gpu:software"),
    ]
    assert len({k.subject for k in (base, *others)}) == 1 + len(others)
    assert replaced(base, device="gpu:0").subject == replaced(base, device="gpu:1").subject
    assert replaced(base, device="npu:sim:aie2").subject != replaced(base, device="npu:sim").subject
    assert base.text == "matmul K=64 M=512 (f32) on cpu"


def test_subject_does_not_change_between_versions_of_this_code() -> None:
    assert key().subject == "45a3f653080061adbd1e165818cf2cf5"


def test_meaning_is_without_names_and_words() -> None:
    def op(name: str, doc: str, dtype: Any) -> Op:
        return Op(name=name, types=(), params=(Tensor(name="x", dtype=dtype, shape=(Var(name="N"),)),), sizes=("N",), stages=(), doc=doc)

    assert meaning(op("f", "", F32)) == meaning(op("g", "words", F32))
    assert meaning(op("f", "", F32)) != meaning(op("f", "", BF16))


# Trials ----------------------------------------------------------------------------------------------------------------


@given(
    schedules,
    st.lists(st.floats(1e-12, 1e6), min_size=1, max_size=5),
    st.none() | st.lists(st.floats(1e-12, 1e6), max_size=5),
    named,
    st.floats(0, 1e11),
    names,
)
def test_trials_round_trip(
    schedule: Schedule, samples: list[float], paired: list[float] | None, operating: tuple[tuple[str, str], ...], time: float, text: str
) -> None:
    made = ok(candidate(schedule), samples, None if paired is None else (tiled(4), paired), time=time, block=text)
    made = msgspec.structs.replace(made, operating=operating, code=text, launch_seconds=samples[0])
    name, again = read(write(made).removesuffix(b"\n"))
    assert again == made
    assert name == made.id == identity(again)
    assert b"\n" not in write(made)[:-1]


def test_other_records_round_trip() -> None:
    forget = Forget(kernel=KERNEL, subject=key().subject, ids=("0" * 32,), time=2.0)
    others: tuple[Record, ...] = (Pin(key=key(), candidate=tiled(4), time=1.0), forget, HERE, failed(tiled(3), "timeout", "30 s"))
    assert {type(record) for record in others} == set(get_args(Record))
    for record in others:
        name, again = read(write(record).removesuffix(b"\n"))
        assert (name, again) == (identity(record), record)


def test_identity_is_all_but_the_origin() -> None:
    made = ok(tiled(4), [1e-3])
    assert msgspec.structs.replace(made, origin="a friend").id == made.id
    others = [
        msgspec.structs.replace(made, samples=(1.0000000000000002e-3,)),
        msgspec.structs.replace(made, time=1000.5),
        msgspec.structs.replace(made, launcher="cold"),
        msgspec.structs.replace(made, candidate=tiled(5)),
        msgspec.structs.replace(made, key=key(at=NEWER)),
    ]
    assert len({t.id for t in (made, *others)}) == 1 + len(others)


@pytest.mark.parametrize(
    "change",
    [
        {"samples": (0.0,)}, {"samples": (-1.0,)}, {"samples": (1e7,)}, {"samples": ("1",)}, {"time": -1.0}, {"time": math.nan},
        {"sizes": (("N", -1),)}, {"sizes": (("N", 1 << 64),)}, {"reason": "x" * 5000}, {"launch_seconds": math.inf},
        {"key": msgspec.structs.replace(key(), kernel="../../etc")}, {"outcome": "fine", "samples": (), "reason": "?"},
        {"operating": (("a",),)}, {"launcher": "hot"},
    ],
)  # fmt: skip
def test_values_out_of_range_are_not_written(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        write(msgspec.structs.replace(ok(tiled(4), [1e-3]), **change))


@pytest.mark.parametrize(
    ("outcome", "samples", "reason"), [("ok", (), ""), ("crash", (1.0,), "why"), ("crash", (), ""), ("skipped", (), ""), ("ok", (math.nan,), "")]
)
def test_trials_that_say_two_things(outcome: Any, samples: tuple[float, ...], reason: str) -> None:
    with pytest.raises(ValueError):
        Trial(key=key(), candidate=tiled(4), outcome=outcome, samples=samples, reason=reason, measurer="t", time=0.0)


def test_a_trial_that_is_too_long_is_not_written() -> None:
    with pytest.raises(ValueError, match="bytes"):
        write(ok(tiled(4), [0.12345678901234567] * 60_000))


def test_unknown_fields_are_another_format() -> None:
    line = write(failed(tiled(4), "crash")).replace(b'"measurer"', b'"extra":1,"measurer"').removesuffix(b"\n")
    with pytest.raises(Unusable) as caught:
        read(line)
    assert caught.value.fault == "damaged"
    assert encode(failed(tiled(4), "crash")) in write(failed(tiled(4), "crash"))
