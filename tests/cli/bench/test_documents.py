"""What is printed of a document: text, Markdown, exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import Command, program
from tridsl.cli.bench.command import report


def _one(seconds: float, value: float | None = None, **more: Any) -> dict[str, Any]:
    return {"median_seconds": seconds, "p10_seconds": seconds, "p90_seconds": seconds, "samples": 30, "label": "measured"} | ({} if value is None else {"value": value}) | more


def _row(name: str, verdict: str = "floor", **more: Any) -> dict[str, Any]:
    contestants = {"tridsl": _one(2e-3, 80.0, roof="fma", fraction=0.8), "numpy": _one(1e-3, 160.0, roof="fma", fraction=1.6)}
    peaks = {"fma": {"rate": 1e11, "unit": "FLOP/s", "label": "measured"}}
    return {
        "name": name, "operation": "stdlib:matmul", "case": "M=2", "regime": "hot", "bytes": 8, "correct": True, "error": 1e-7, "peers": {"numpy": 0.0, "torch": "is off"},
        "slow": {"jax": {"seconds": 3.0, "label": "measured"}}, "missing": [], "elsewhere": ["ggml"],
        "readings": {"hot": {"contestants": contestants, "peaks": peaks, "rotated_bytes": 0}},
        "compile": {"cold_seconds": 0.1, "warm_seconds": 0.01, "run_seconds": 2e-3, "lowering_seconds": 0.04, "build_seconds": 0.05,
                    "stages": {"emit": 0.03, "build": 0.05}, "dispatch": _one(1e-7), "label": "measured"},
        "goal": {"unit": "% of fma", "floor": 70, "goal": 90, "peers": {}}, "value": 80.0,
        "verdict": verdict, "absolute": verdict, "by_peer": None, "floor_of_peer": None, "through": "",
    } | more  # fmt: skip


MACHINE = {
    "device": "cpu", "description": "a chip", "threads": 1, "cores": [1], "samples": 30, "peers": {"numpy": True, "halide": False}, "versions": {"numpy": "2.4"},
    "target": "znver4", "rotation_bytes": 1 << 27, "caches": {"l1_bytes": 1, "l2_bytes": 1 << 20, "l3_bytes": 1 << 25}, "quick": False,
}  # fmt: skip


def _data(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"machine": MACHINE, "rows": list(rows)}


WRONG = {"name": "w", "operation": "stdlib:w", "case": "", "regime": "hot", "correct": False, "error": "y[0] is 1"}
FAILED = {"name": "f", "operation": "f", "case": "", "error": "error[E0001]: no"}


@pytest.mark.parametrize(
    ("rows", "strict", "status"),
    [
        ((_row("a"),), True, 0), ((_row("a", "missed"),), False, 0), ((_row("a", "missed"),), True, 1), ((FAILED,), True, 3), ((), False, 3),
        ((_row("a"), WRONG), False, 70), ((_row("a", "missed"), FAILED), False, 0),
    ],
)  # fmt: skip
def test_exit_status(rows: tuple[dict[str, Any], ...], strict: bool, status: int) -> None:
    assert report(_data(*rows), strict=strict).status == status


def test_markdown_shows_losses() -> None:
    by_peer = _row("b", "missed", goal={"unit": "ns/pixel", "floor": 0.4, "goal": 0.2, "peers": {"halide": 0.25}}, value=0.9, absolute="missed", floor_of_peer=0.8, by_peer="missed", through="halide")
    other = by_peer | {"name": "c", "through": "opencv", "goal": by_peer["goal"] | {"peers": {"halide": 0.25, "opencv": 0.5}}}
    (text,) = report(_data(_row("a"), by_peer, other, WRONG, FAILED), as_markdown=True).text
    assert "Other programs" not in text
    other["readings"]["hot"]["contestants"]["numpy"]["disturbed"] = 9  # `by_peer` has the same readings
    assert "Other programs had the core in 10% of the samples" in report(_data(_row("a"), by_peer, other), as_markdown=True).text[0]
    lines = text.splitlines()
    assert "a chip; 1 thread(s), pinned to core(s) 1 (target `znver4`), *measured*; cold: buffers go round in 128 MiB." in lines[0]
    assert "Not measured: halide, ggml (no peer of this suite)." in text
    assert "| a | hot | 2 ms | 80% of fma | 70 | 90 | floor |  | **numpy 0.50** | numpy 1 ms |" in lines
    assert "| b | hot | 2 ms | 0.9 ns/pixel | 0.8 | 0.4 | **missed** | missed (0.4) | **numpy 0.50** | numpy 1 ms |" in lines
    assert "| c | hot | 2 ms | 0.9 ns/pixel | 0.8 by opencv | 0.4 | **missed** | missed (0.4) | **numpy 0.50** | numpy 1 ms |" in lines
    assert any(line.startswith("| w ") and "**wrong**" in line for line in lines) and any(line.startswith("| f ") and "not measured" in line for line in lines)
    assert "| a | 100 ms | 10 ms | 2 ms | 40 ms | 50 ms | 100 ns |" in lines
    columns = {line.count("|") for line in lines if line.startswith(("| a | hot", "| b | hot", "| row |", "| w |", "| f |"))}
    assert len(columns) == 1


def test_a_floor_above_what_reading_allows() -> None:
    (text,) = report(_data(_row("a", "missed", value=30.0, ceiling=40.0)), as_markdown=True).text
    assert "| **missed** | at most 40 here: 75% of read |" in text


def test_a_share_of_the_roofline_is_not_read_as_one_of_the_peak() -> None:
    row = _row("a", "floor", value=30.0, ceiling=40.0, absolute="missed", share_of_roofline=75.0)
    (text,) = report(_data(row), as_markdown=True).text
    assert "| 30% of fma: 75% of the 40 that reading allows | 70% of that | 90% of that | floor | missed (70% of fma) |" in text


def test_markdown_of_awkward_operands() -> None:
    contestants = {"row-major": _one(1e-3, 1.0), "column-major": _one(2e-3, 2.0)}
    row = {"name": "operands: softmax, x", "operation": "stdlib:softmax", "case": "", "regime": "hot", "correct": True, "error": 0.0, "unit": "x row-major",
           "readings": {"hot": {"contestants": contestants, "peaks": {}}}}  # fmt: skip
    (text,) = report(_data(row), as_markdown=True).text
    assert "| softmax, x | 1.00 | 2.00 |" in text


def test_documents_are_read_again(command: Command, tmp_path: Path) -> None:
    for name, rows in {"one": (_row("a"), _row("b", "missed")), "two": (_row("b", "goal"),)}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(_data(*rows)))
    both = ("--read", tmp_path / "one.json", "--read", tmp_path / "two.json")
    found = command("bench", *both, "--json", "--strict")
    assert found.status == 0 and {row["name"]: row["verdict"] for row in found.data["rows"]} == {"a": "floor", "b": "goal"}
    assert command("bench", *both, "--markdown").out.startswith("a chip;")
    text = command("bench", *both).out
    assert "lowering 40 ms (emit 30 ms), LLVM 50 ms  measured" in text and "torch is not timed: is off" in text and "jax takes 3 s, one call" in text
    assert command("bench", "--read", tmp_path / "one.json", "--strict").status == 1


def test_the_table_by_the_command(tmp_path: Path) -> None:
    found = program("bench", "--only", "rmsnorm 64x512", "--only", "first softmax, warm", "--quick", "--no-peers", "--json")
    assert found.status == 0, found.err
    small, start = found.data["rows"]
    assert small["name"] == "rmsnorm 64x512" and small["verdict"] in ("goal", "floor", "missed")
    assert start["goal"]["unit"] == "ms" and start["value"] > 0
    assert found.data["machine"]["quick"] is True and found.data["machine"]["versions"]["numpy"]


def test_suites_are_listed(command: Command) -> None:
    found = command("bench", "--suite", "list", "--json")
    assert "softmax 4096x4096" in found.data["cpu"] and "import tridsl" in found.data["cpu"] and len(found.data["quick"]) == 3
