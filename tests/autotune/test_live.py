"""The live benchmark works: what it measures with two repeats of a tiny op means nothing, that it measures is what is asserted."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import pytest

from tests.autotune.test_measure import children
from tests.bench import live


def measured(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    live.main([*arguments, "--json", "--rounds", "2", "--blocks", "3"])
    found = capsys.readouterr()
    assert "repeat 2 of 2" in found.err or "[1/1]" in found.err
    return json.loads(found.out)


def test_repeats_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    data = measured(capsys, "repeats", "--repeats", "2", "--budget", "0.6s", "--case", "stdlib:softmax x=4x64")
    (row,) = data["rows"]
    assert row["repeats"] == row["wanted"] == sum(row["winners"].values()) == 2 and not row["failed"]
    assert 1 <= row["same"] <= row["near"] <= 2 or row["worst"] > 0.02
    assert row["trials"] > 0 and row["seconds"] > 0 and row["floor"] > 0 and not data["interrupted"]
    assert len(children(os.getpid())) <= 1, "the busy process is left"


def test_winners_are_compared_with_defaults(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "CHECKED_POINTS", 1 << 12)
    data = measured(capsys, "defaults", "--budget", "0.6s", "--ops", "mean")
    (row,) = data["rows"]
    assert row["case"].startswith("mean N=") and not row["problem"]
    assert row["low"] <= row["ratio"] <= row["high"] and row["loss"] == (row["ratio"] > 1 + row["floor"])


def test_repeats_are_judged_by_true_times() -> None:
    def result(text: str) -> Any:
        chosen = type("Candidate", (), {"text": text, "schedule": (text,)})()
        default = type("Candidate", (), {"text": "default", "schedule": ("default",)})()
        return type("Result", (), {"winner": chosen, "schedule": chosen.schedule, "incumbent": default, "trials": 10})()

    ratios = {"a": (-0.5,) * 8, "b": (-0.49,) * 8, "c": (-0.4,) * 8}
    compared = live.Compared(ratios=ratios, seconds=1e-3, failed={"d": "crash"}, floor=0.01)
    row = live.judged("case", 10, [result(n) for n in "aaabbbc"], compared)
    assert (row.repeats, row.same, row.near, row.kept) == (7, 3, 6, False)
    assert math.isclose(row.worst, math.expm1(0.1)) and math.isclose(row.gain, math.expm1(-0.5))
    assert live.judged("case", 10, [result("a")] * 10, compared).kept
    lost = live.judged("case", 10, [result("default"), result("a")], compared)
    assert (lost.same, lost.near) == (1, 1) and math.isclose(lost.worst, math.expm1(0.5))
    assert live.judged("case", 10, [result("d")], compared).worst > 1e9


def test_every_op_is_made_short() -> None:
    found = live.library(())
    assert len(found) > 25 and all(r.team == 1 for r in found.values())
    assert all(live._short(r) for r in found.values())
