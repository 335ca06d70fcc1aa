"""The recorder: a few points of a small space, ended and gone on with, and read back by the replayer."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.autotune.kernels import cpu
from tests.bench.replay import subjects
from tests.bench.replay.compare import report
from tests.bench.replay.record import chip_of, main, record, space_of
from tests.bench.replay.subjects import SUBJECTS, Recorded, name_of, op_of
from tridsl.autotune.measure import Limits
from tridsl.autotune.replay import read

TINY = Recorded(op="saxpy", lift=0, shapes=({"N": 64},))
LIMITS = Limits(turn_seconds=0.0005)


def test_a_space_is_recorded_in_two_goes(tmp_path: Path) -> None:
    device = cpu()
    device = replace(device, spec=replace(device.spec, cores=2))
    path = tmp_path / "tiny.jsonl"
    end = time.monotonic() + 60
    record(TINY, {"N": 64}, path, device, 3, 1, end, LIMITS, most=2)
    first = read(path)
    assert len(first.ratios) == 2 and all(len(r) == 3 for r in first.ratios.values()) and set(first.predicted) == set(first.ratios)
    path.write_bytes(path.read_bytes() + b'{"point": {"z.thr')
    record(TINY, {"N": 64}, path, device, 3, 1, end, LIMITS, most=1)
    second = read(path)
    assert len(second.ratios) == 3 and set(first.ratios) < set(second.ratios)
    assert all(p in space_of(TINY, {"N": 64}, device.spec) for p in second.ratios)
    assert second.header.op == "stdlib:saxpy" and second.header.chip["vector_bits"] == device.spec.vector_bits
    assert chip_of(second.header) == device.spec
    with pytest.raises(SystemExit, match="another (software|threads)"):
        record(TINY, {"N": 64}, path, device, 3, 2, end, LIMITS)


def test_the_list_says_what_is_left_of_a_recording(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "rmsnorm-f32-64x512"]) == 0
    assert re.search(r"points; recorded 216, of which \d+ are points of today's space there", capsys.readouterr().out)


def test_subjects_are_many_and_named_apart() -> None:
    names = [name_of(s, shape) for s in SUBJECTS for shape in s.shapes]
    assert len(set(names)) == len(names) >= 24 and len({s.op for s in SUBJECTS}) >= 6
    for subject in SUBJECTS:
        op = op_of(subject.op, subject.overload, subject.types, subject.lift)
        assert set(op.sizes) == set(subject.shapes[0]), (subject.op, op.sizes)


def test_the_comparison_prints_its_verdicts() -> None:
    from rich.console import Console

    from tests.autotune.spaces import recording

    console = Console(record=True, width=200, quiet=True)
    found = report([recording("cliff")], 2, 20, console, peer_seeds=1)
    assert ("cliff0", "ranked") in found and all(len(s.trials) == s.seeds for s in found.values())
    assert subjects.SUBJECTS
