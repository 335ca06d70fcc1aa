"""`tridsl doctor` and its `--npu-report`: without a device, with one that is played, and with a wrong answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.npu.test_facts import whole
from tests.cli.command import Command
from tridsl.backends.npu.facts import Machine
from tridsl.cli import doctor, npu_report


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ops are enough here."""
    cases = tuple(npu_report._cases())

    def chosen() -> Iterator[tuple[str, tuple[Any, ...]]]:
        yield from (cases[0], cases[2])

    monkeypatch.setattr(npu_report, "_cases", chosen)


def without_device(root: Path) -> Machine:
    return Machine(root=root, path=str(root), importable=lambda name: False)


def test_a_report_without_a_device(command: Command, few: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(npu_report, "this_machine", lambda peano: without_device(tmp_path))
    shown = command("doctor", "--npu-report")
    assert shown.status == 0
    assert "Nothing was run on an NPU (NPU: none on the PCI bus" in shown.out and "measured" not in shown.out
    assert len(re.findall(r"^    (?:kernels\.cc|design\.mlir|insts\.txt) +[0-9a-f]{12}$", shown.out, re.MULTILINE)) == 2 * 2 * 3
    assert shown.out.count("simulated     equal") == 2 and shown.out.count("simulated     within") == 2
    data = command("doctor", "--npu-report", "--json").data
    assert [row["op"] for row in data["designs"]] == ["saxpy float32", "matmul int8"] * 2
    assert {f["part"] for f in data["parts"]} >= {"kernel driver", "Peano"}


def test_with_a_device_the_answers_of_its_own_are_measured(command: Command, few: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The device is played by files, so calls of it end where the driver looks at the machine itself: that, too, is in the report."""
    monkeypatch.setattr(npu_report, "this_machine", lambda peano: whole(tmp_path))
    rows = command("doctor", "--npu-report", "--json").data["designs"]
    assert [bool(row["measured"]) for row in rows] == [row["generation"] == "aie2p" for row in rows]
    assert all(row["measured"].startswith("none: E07") for row in rows if row["measured"])


def test_a_wrong_answer_is_our_bug(command: Command, few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(op: Any, arguments: tuple[Any, ...], device: str) -> str:
        return compared(_Altered(op), arguments, device)

    compared = npu_report._compared
    monkeypatch.setattr(npu_report, "_compared", wrong)
    shown = command("doctor", "--npu-report")
    assert shown.status == 70
    assert "wrong: 1 of 1600 integers differ" in shown.out and "wrong: beyond 1e-05" in shown.out


def test_doctor_shows_every_part_where_there_is_a_device(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = whole(tmp_path)
    (tmp_path / "usr/lib/x86_64-linux-gnu/libxrt_driver_xdna.so.2").unlink()
    monkeypatch.setattr(doctor, "this_machine", lambda peano: machine)
    shown = command("doctor")
    assert "Strix Halo (XDNA2): aie2p" in shown.out and "1.0.0.166 is running" in shown.out
    lines = [line.strip() for line in shown.out.splitlines()]
    at = next(n for n, line in enumerate(lines) if line.startswith("note    XRT plugin for XDNA"))
    assert lines[at + 1] == "for: the NPU" and lines[at + 2].startswith("seen: XRT finds 0 devices") and lines[at + 3].startswith("fix: install it")


class _Altered:
    """An op whose answers on devices are off in one place."""

    def __init__(self, op: Any) -> None:
        self.reference, self._op = op.reference, op

    def __call__(self, *arguments: Any, device: str) -> Any:
        found = np.array(self._op(*arguments, device=device))
        found.flat[7] += 1
        return found
