"""`tridsl personality ship`: winners as default answers of the chip's family."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.cli.world import World
from tridsl.autotune.space import space_of
from tridsl.cli.personality.ship import sheet_text
from tridsl.devices import answers
from tridsl.devices.answers import Row, Sheet
from tridsl.personality.candidate import Candidate, candidate

PRODUCT = "op f(A: f32[M, K], B: f32[K, N]) -> C: f32[M, N] {\n  C[i, j] = sum[k](A[i, k] * B[k, j])\n}\nbench f { M = 24, K = 16, N = 32 }\n"


@pytest.fixture
def own(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose op has no schedule text, on a processor that has a chip file."""
    file = tmp_path / "product.tri"
    file.write_text(PRODUCT)
    found = World(command=world.command, monkeypatch=monkeypatch, personality=world.personality, operation=f"{file}:f", cache=world.cache)
    name = found.request().device.spec.name
    monkeypatch.setattr("tridsl.cli.personality.ship.chip_names", lambda: (name,))
    return found


def _points(world: World) -> tuple[Candidate, Candidate, str, int]:
    """The scheduler's default, and the point that differs in one answer: which, and to what."""
    request = world.request()
    space = space_of(request.op, request.subject.device.spec, request.sizes, request.blocks)
    default = dict(space.default())
    choice = next(c for c in space.ask({}) if c.name == "C.rows")
    value = next(v for v in choice.values if v != choice.values[0])
    point = space.near({**default, choice.name: value})
    assert point is not None and isinstance(value, int)
    return candidate(space.schedule(space.default()), default), candidate(space.schedule(point), dict(point)), choice.name, value


def test_a_winner_becomes_a_row(own: World) -> None:
    default, better, name, value = _points(own)
    own.keep(own.trials({default: 2e-4, better: 1e-4}))
    told = own("personality", "ship", own.operation, "--json")
    assert told.status == 0, told.err
    (row,) = told.data["rows"]
    assert row["answers"] == {name: value} and row["types"] == {"A": "f32", "B": "f32", "C": "f32"}
    assert row["sizes"] == "K=16 M=24 N=32" and row["source"] == "measured"
    assert "K=16 M=24 N=32, 1 thread: " in row["evidence"] and "against the scheduler's own default" in row["evidence"] and "−" in row["evidence"]
    (wider,) = own("personality", "ship", own.operation, "--alike", "--json").data["rows"]
    assert wider == row | {"sizes": "K~16 M~2^4/8 N~2^5/32"}
    printed = own("personality", "ship", own.operation).out
    assert msgspec.toml.decode(printed, type=Sheet).row == (msgspec.convert(row, Row),)


def test_rows_are_added_to_a_file(own: World, tmp_path: Path) -> None:
    default, better, name, value = _points(own)
    own.keep(own.trials({default: 2e-4, better: 1e-4}))
    file = tmp_path / "chip.toml"
    kept = Row(op="z", types={"x": "f32"}, sizes="N~2^6/64", answers={"y.vector": "n", "y.stream": True}, source="measured", evidence='"quoted" \\ text')
    older = Row(op="f", types={"A": "f32", "B": "f32", "C": "f32"}, sizes="K=16 M=24 N=32", answers={"C.rows": 1}, source="measured", evidence="old")
    file.write_text(sheet_text([kept, older]))
    assert msgspec.toml.decode(file.read_text(), type=Sheet).row == (older, kept)
    assert own("personality", "ship", own.operation, "-o", file).out.startswith("1 row in")
    first, second = msgspec.toml.decode(file.read_text(), type=Sheet).row
    assert (first.op, first.answers, second) == ("f", {name: value}, kept)


def test_why_tells_of_them(own: World, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row(op="f", types={"A": "f32", "B": "f32", "C": "f32"}, sizes="K~16 M~2^4/8 N~2^5/32", answers={"C.rows": 4, "C.gone": 1}, source="measured", evidence="10 µs")
    assert own("why", own.operation, "--json").data["subjects"][0]["shipped"] is None
    monkeypatch.setattr(answers, "shipped", lambda chip: {row.subject: row})
    told = own("why", own.operation)
    assert "C.rows=4 C.gone=1 (measured: 10 µs)" in told.out and "C.gone is not possible here any more and keeps the scheduler's own default" in told.out
    assert own("why", own.operation, "--json").data["subjects"][0]["shipped"]["answers"] == {"C.rows": 4, "C.gone": 1}


def test_what_is_not_shipped(own: World, world: World) -> None:
    assert "no winner measured here" in own("personality", "ship", own.operation).out
    default, better, _, _ = _points(own)
    own.keep(own.trials({default: 1e-4, better: 2e-4}))
    assert "the scheduler's own default is best" in own("personality", "ship", own.operation).out
    own.keep(own.trials({default: 1e-4, better: 0.9995e-4}, seed=3))
    assert own("personality", "ship", own.operation, "--json").data["rows"] == []
    assert "goes before shipped answers" in world("personality", "ship", world.operation).out


def test_nothing_to_ship_for(own: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default, better, _, _ = _points(own)
    own.keep(own.trials({default: 2e-4, better: 1e-4}))
    file = tmp_path / "chip.toml"
    file.write_text("[[row]]\nop = 3\n")
    found = own("personality", "ship", own.operation, "-o", file)
    assert found.status == 1 and "E0820" in found.err and file.read_text() == "[[row]]\nop = 3\n"
    monkeypatch.setattr("tridsl.cli.personality.ship.chip_names", lambda: ())
    found = own("personality", "ship", own.operation)
    assert found.status == 1 and "E0820" in found.err
