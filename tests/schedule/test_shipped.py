"""Shipped answers: defaults of a family of chips, behind all that anybody says; what does not fit any more is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.autotune.kernels import MATMUL, TEXT, module, op
from tridsl import stdlib
from tridsl.api.compilation import lower
from tridsl.api.engine import Services
from tridsl.api.library import compile_text
from tridsl.api.store import DiskStore
from tridsl.autotune.space import automatic_space, space_of
from tridsl.backend import load_backend
from tridsl.check.lift import lift
from tridsl.check.resolve import bind
from tridsl.check.signature import type_choices
from tridsl.check.types import check_op
from tridsl.devices import answers
from tridsl.devices.answers import Answer, Row, Sheet, sheets, shipped
from tridsl.devices.spec import DeviceSpec, chip_names, load_chip
from tridsl.diagnostics import TriError
from tridsl.ir.op import Op
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import Build
from tridsl.pipeline import lower as lowered
from tridsl.program.realise import Realiser
from tridsl.runtime.artifacts import Artifacts
from tridsl.schedule.automatic import automatic, choices, choose, unused_answers
from tridsl.schedule.shapes import bucket, sized_like
from tridsl.schedule.shipped import row_for, shipped_answers
from tridsl.schedule.steps import Split
from tridsl.schedule.text import text_schedule
from tridsl.syntax.parse import parse

SPEC = load_chip("x86_64_v3")
SIZES = {"M": 64, "N": 64, "K": 64}
TYPES = {"A": "f32", "B": "f32", "C": "f32"}


@pytest.fixture
def ship(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[Row]]]:
    """Rows by chip, in place of the files."""
    rows: dict[str, list[Row]] = {}
    monkeypatch.setattr(answers, "shipped", lambda chip: {row.subject: row for row in rows.get(chip, ())})
    yield rows


def row(given: Mapping[str, Answer], sizes: Mapping[str, int] | str = SIZES, types: Mapping[str, str] = TYPES, name: str = "f") -> Row:
    text = sizes if isinstance(sizes, str) else sized_like(sizes)
    return Row(op=name, types=dict(types), sizes=text, answers=dict(given), source="measured", evidence="a test")


def other(what: Op, spec: DeviceSpec = SPEC) -> dict[str, Answer]:
    """Another answer to a question that the default schedule asks."""
    choice = next(c for c in choices(what, spec, SIZES, {}, shipped=False) if c.name == "C.rows")
    return {"C.rows": next(v for v in choice.values if v != choice.default)}


def test_they_are_the_defaults(ship: dict[str, list[Row]]) -> None:
    what = op(MATMUL)
    own, better = automatic(what, SPEC, SIZES), other(what)
    ship[SPEC.name] = [row(better)]
    assert automatic(what, SPEC, SIZES) != own == automatic(what, SPEC, SIZES, shipped=False)
    rows = next(c for c in choices(what, SPEC, SIZES, {}) if c.name == "C.rows")
    before = next(c for c in choices(what, SPEC, SIZES, {}, shipped=False) if c.name == "C.rows")
    assert rows.default == better["C.rows"] and set(rows.values) == set(before.values) and rows.values[1] == before.default
    assert unused_answers(what, SPEC, SIZES) == ()


def test_a_search_begins_with_them(ship: dict[str, list[Row]]) -> None:
    what = op(MATMUL)
    ship[SPEC.name] = [row(other(what))]
    space = automatic_space(what, SPEC, SIZES)
    assert dict(space.default())["C.rows"] == other(what)["C.rows"]
    assert space.schedule(space.default()) == automatic(what, SPEC, SIZES)


def test_answers_that_somebody_gives_go_before(ship: dict[str, list[Row]]) -> None:
    what = op(MATMUL)
    own = {c.name: c.default for c in choices(what, SPEC, SIZES, {}, shipped=False)}
    plain = automatic(what, SPEC, SIZES)
    ship[SPEC.name] = [row(other(what))]
    assert choose(what, SPEC, SIZES, own) == plain


def test_a_schedule_text_goes_before(ship: dict[str, list[Row]]) -> None:
    what, blocks = op(TEXT), module(TEXT).schedules["f"]
    sizes = {"M": 64, "N": 64}
    before = text_schedule(blocks, what, SPEC, sizes)
    ship[SPEC.name] = [row({"y.vector": "i"}, sizes, {"x": "f32", "y": "f32"})]
    assert before is not None and text_schedule(blocks, what, SPEC, sizes) == before
    assert space_of(what, SPEC, sizes, blocks).name == "the schedule of `f` for cpu"


@pytest.mark.parametrize(
    "row",
    [
        row({"C.rows": 5}, {**SIZES, "M": 128}), row({"C.rows": 5}, {**SIZES, "M": 65}), row({"C.rows": 5}, types={**TYPES, "C": "f64"}),
        row({"C.rows": 5}, types={"A": "f32", "B": "f32"}), row({"C.rows": 5}, name="g"), row({"C.rows": 5}, "nonsense"),
    ],
    ids=["octave", "divisor", "type", "tensors", "op", "text"],
)  # fmt: skip
def test_rows_for_others_are_not_taken(ship: dict[str, list[Row]], row: Row) -> None:
    ship[SPEC.name] = [row]
    assert row_for(op(MATMUL), SPEC, SIZES) is None


def test_they_are_for_one_chip_and_known_sizes(ship: dict[str, list[Row]]) -> None:
    what = op(MATMUL)
    ship["another"] = [row(other(what))]
    assert shipped_answers(what, SPEC, SIZES) == {}
    ship[SPEC.name] = ship["another"]
    assert shipped_answers(what, SPEC, {"M": 64, "N": 64}) == {}
    assert shipped_answers(what, SPEC, {"M": 127 // 64 * 64, "N": 64, "K": 64}) == other(what)


def test_exact_sizes_go_before_their_class(ship: dict[str, list[Row]]) -> None:
    what = op(MATMUL)
    ship[SPEC.name] = [row({"C.rows": 1}), row({"C.rows": 2}, "K=64 M=64 N=64")]
    assert shipped_answers(what, SPEC, SIZES) == {"C.rows": 2}
    ship[SPEC.name] = [row({"C.rows": 1}, sized_like({"K": 192, "M": 64, "N": 64})), row({"C.rows": 2}, "K=192 M=64 N=64")]
    assert [shipped_answers(what, SPEC, {"M": 64, "N": 64, "K": k}) for k in (192, 128, 64)] == [{"C.rows": 2}, {"C.rows": 1}, {}]


@pytest.mark.parametrize("answer", [{"C.nothing": 3}, {"D.rows": 4}, {"C.rows": 12345}, {"C.rows": "many"}, {"C.rows": True}])
def test_what_is_not_possible_any_more_is_left_out(ship: dict[str, list[Row]], answer: dict[str, Answer]) -> None:
    what = op(MATMUL)
    own = automatic(what, SPEC, SIZES)
    ship[SPEC.name] = [row(answer)]
    assert automatic(what, SPEC, SIZES) == own
    assert unused_answers(what, SPEC, SIZES) == tuple(answer)
    if answer.keys().isdisjoint(other(what)):
        ship[SPEC.name] = [row(answer | other(what))]
        assert automatic(what, SPEC, SIZES) != own and unused_answers(what, SPEC, SIZES) == tuple(answer)


def test_a_schedule_that_is_not_legal_any_more_is_not_used(ship: dict[str, list[Row]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler's answers are usually legal together; where they are not, the user must not notice."""
    what = op(MATMUL)
    device = load_backend("cpu").driver().devices()[0]
    build = Build(spec=device.spec, backend=load_backend("cpu"), facts=Specialisation(sizes=tuple(SIZES.items())))
    want = lowered(what, build).text
    broken = (Split(stage="C", axis="nowhere", factor=2),)
    real = automatic
    monkeypatch.setattr("tridsl.pipeline.automatic", lambda op, spec, sizes, shipped=True: broken if shipped else real(op, spec, sizes, shipped=False))
    assert lowered(what, build).text == want
    with pytest.raises(TriError):
        lowered(what, replace(build, schedule=broken))


def test_calls_use_them_and_give_the_same(ship: dict[str, list[Row]], tmp_path: Path) -> None:
    spec = load_backend("cpu").driver().devices()[0].spec
    ones = np.arange(64 * 64, dtype=np.float32).reshape(64, 64) % 7
    spread = replace(spec, cores=1)
    texts, results = [], []
    for given in ({}, other(op(MATMUL), spread)):
        ship[spec.name] = [row(given)] if given else []
        services = Services(realiser=Realiser(store=DiskStore(Artifacts(tmp_path / str(len(texts))))))
        ops = compile_text(MATMUL, stdlib.source, services)
        texts.append(lower(ops.f._engine, (ones, ones), {}, "schedule", None))
        results.append(ops.f(ones, ones))
    assert texts[0] != texts[1] and np.array_equal(*results)
    explicit = lower(ops.f._engine, (ones, ones), {}, "schedule", automatic(op(MATMUL), spec, SIZES, shipped=False))
    assert explicit == texts[0]


def test_a_file_of_rows() -> None:
    text = '[[row]]\nop = "f"\ntypes = { A = "f32" }\nsizes = "N~2^6/64"\nanswers = { "C.rows" = 8, "C.pack" = true, "C.order" = "ijk" }\nsource = "measured"\nevidence = "x"\n'
    (only,) = msgspec.toml.decode(text, type=Sheet).row
    assert only.answers == {"C.rows": 8, "C.pack": True, "C.order": "ijk"} and type(only.answers["C.pack"]) is bool
    with pytest.raises(msgspec.ValidationError):
        msgspec.toml.decode(text + "more = 1\n", type=Sheet)
    assert shipped("no such chip") == {}


def _size(text: str) -> tuple[str, int]:
    """`M=512`, or a size of the class `M~2^9/8`."""
    exact = re.fullmatch(r"(\w+)=(\d+)", text)
    if exact is not None:
        return exact[1], int(exact[2])
    found = re.fullmatch(r"(\w+)~(?:2\^(\d+)/(\d+)|(\d+))", text)
    assert found is not None, text
    name, octave, divisor, small = found.groups()
    if small is not None:
        return name, int(small)
    low = 1 << int(octave)
    return name, low if int(divisor) == 64 or low == int(divisor) else low + int(divisor)


def _op(row: Row) -> Op:
    """The library's op of a row, with the leading axes that its sizes speak of."""
    source = stdlib.source(row.op)
    assert source is not None
    bound = bind(parse(source), lambda name, importing: stdlib.source(name))
    sizes = {re.split("[=~]", text)[0] for text in row.sizes.split()}
    batch = sum(bool(re.fullmatch(r"B\d", name)) for name in sizes)
    for overload in bound.operations[row.op]:
        for types in type_choices(overload.operation):
            try:
                plain = check_op(bound, overload, types)
            except TriError:
                continue
            if {t.name: t.dtype.name for t in plain.tensors} != row.types:
                continue
            inputs = [t for t in plain.tensors if t.role != "output"]
            for leading in product((batch, 0), repeat=len(inputs)):
                whole = lift(plain, leading)
                if set(whole.sizes) == sizes:
                    return whole
    raise AssertionError(f"no overload of {row.op} has the types and sizes of the row")


@pytest.mark.parametrize("chip", sheets())
def test_what_is_shipped_fits_the_library(chip: str) -> None:
    """Every row is for an op that there is, its answers are asked for and possible, and their schedule compiles."""
    assert chip in chip_names()
    spec = replace(load_chip(chip), cores=1)
    backend = load_backend("cpu")
    for row in shipped(chip).values():
        whole, sizes = _op(row), dict(map(_size, row.sizes.split()))
        assert row.sizes in (bucket(sizes), sized_like(sizes)) and row.source == "measured" and row.evidence and row.answers
        assert row_for(whole, spec, sizes) is row
        assert unused_answers(whole, spec, sizes) == (), f"{row.op} {row.sizes}"
        build = Build(spec=spec, backend=backend, schedule=automatic(whole, spec, sizes), facts=Specialisation(sizes=tuple(sizes.items())))
        lowered(whole, build, until="finish")
