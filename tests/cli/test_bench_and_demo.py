"""bench and demo: that they check, measure and report; never how fast anything is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.command import program
from tridsl.cli.bench import peers
from tridsl.cli.bench.sampling import interleave, reading
from tridsl.cli.bench.table import seconds


def test_bench_of_an_op_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.tri"
    file.write_text("op mine[T in {f32, f64}](a: T, x: T[N]) -> y: T[N] {\n  y[i] = a * x[i]\n}\nbench mine { T = f64, N = 5000, a = -2.5 }\n")
    found = program("bench", f"{file}:mine", "--json")
    assert found.status == 0, found.err
    data = json.loads(found.out)
    (row,) = data["rows"]
    assert row["correct"] is True
    assert row["compile"]["cold_seconds"] > row["compile"]["warm_seconds"] > 0
    for regime in ("hot", "cold"):
        (one,) = row["readings"][regime]["contestants"].values()
        assert one["label"] == "measured" and one["samples"] >= 30
        assert 0 < one["p10_seconds"] <= one["median_seconds"] <= one["p90_seconds"]
        assert one["roof"] == "copy" and one["fraction"] > 0
        assert all(p["rate"] > 0 and p["label"] == "measured" for p in row["readings"][regime]["peaks"].values())
    stages = row["compile"]["stages"]
    assert {"automatic", "schedule", "emit", "build"} <= set(stages) and all(s >= 0 for s in stages.values())
    assert row["compile"]["build_seconds"] == stages["build"] < row["compile"]["build_seconds"] + row["compile"]["lowering_seconds"]
    assert len(data["machine"]["cores"]) == 1 and set(data["machine"]["peers"]) == set(peers.LIBRARIES)


def test_bench_beside_numpy() -> None:
    found = program("bench", "--suite", "quick")
    assert found.status == 0, found.err
    (case,) = (part for part in found.out.split("\n\n") if part.startswith("stdlib:softmax"))
    lines = [line.split() for line in case.splitlines()]
    assert {("hot", "tridsl"), ("hot", "numpy"), ("cold", "tridsl")} <= {tuple(line[:2]) for line in lines if line[-1] == "measured"}
    assert max(map(len, case.splitlines())) < 100


@pytest.mark.parametrize(
    ("arguments", "code"), [
        (("stdlib:nothing",), "E0534"), (("--suite", "nothing"), "E0814"), (("none.tri:f",), "E0803"), (("--only", "nothing"), "E0814"),
        (("--read", "none.json"), "E0803"), (("--read", __file__), "E0814"),
    ]
)  # fmt: skip
def test_bench_of_nothing(arguments: tuple[str, ...], code: str) -> None:
    found = program("bench", *arguments)
    assert found.status == 1 and code in found.err


def test_an_op_without_a_bench_block(tmp_path: Path) -> None:
    file = tmp_path / "mine.tri"
    file.write_text("op mine(x: f32[N]) -> y: f32[N] {\n  y[i] = x[i]\n}\n")
    assert "E0814" in program("bench", f"{file}:mine").err
    file.write_text("op mine(x: f32[N]) -> y: f32[N] where N > 9 {\n  y[i] = x[i]\n}\nbench mine { N = 3 }\n")
    found = program("bench", f"{file}:mine", "--json")
    assert found.status == 3
    assert "error" in json.loads(found.out)["rows"][0]


def test_samples_are_taken_in_turn() -> None:
    order: list[str] = []
    found = interleave({name: lambda number, name=name: order.append(name) for name in ("a", "b")}, 30)  # type: ignore[misc]
    assert set(found) == {"a", "b"} and all(r.samples == 30 for r in found.values())
    tail = "".join(order[-200_000:])
    assert "ab" in tail and "ba" in tail


def test_a_reading_is_a_median_with_its_spread() -> None:
    one = reading([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (one.median, one.samples) == (3.0, 5) and one.p10 < 2 and one.p90 > 4
    assert [seconds(v) for v in (2.0, 0.0123, 4.5e-6, 7e-10)] == ["2 s", "12.3 ms", "4.5 µs", "0.7 ns"]


@pytest.mark.long
def test_demo_on_every_device_here(tmp_path: Path) -> None:
    y, x = np.mgrid[0:60, 0:80]
    Image.fromarray(np.stack([np.where(x > 40, 220, 10), y, x], -1).astype(np.uint8)).save(tmp_path / "in.png")
    found = program("demo", "--image", tmp_path / "in.png", "-o", tmp_path / "out", "--json")
    data = json.loads(found.out)
    wrong = [f"{r['device']} {r['what']} {r['case']}: {r['answer']}" for r in data["rows"] if not r["right"]]
    assert not wrong
    assert found.status == 0
    assert "cpu" in data["devices"]
    rows = [r for r in data["rows"] if r["device"] == "cpu"]
    assert {"ternary FFN", "stdlib:edges", "stdlib:matmul"} <= {r["what"] for r in rows}
    assert all(r["label"] == "measured" for r in rows)
    edge = np.asarray(Image.open(tmp_path / "out" / "edges-cpu.png"))
    assert edge.shape == (60, 80) and edge.any() and not edge.all()


def test_demo_without_a_photograph_says_what_to_install(tmp_path: Path) -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is not None:
        pytest.skip("matplotlib is installed, and with it the photograph")
    found = program("demo", "-o", tmp_path)
    assert found.status == 1 and "tridsl[demo]" in found.err
