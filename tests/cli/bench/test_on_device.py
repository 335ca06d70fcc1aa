"""The GPU's suite at tiny sizes on the software device; the peer's side on PyTorch's CPU where there is no other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tridsl.api.devices import find
from tridsl.backend import BackendUnavailable
from tridsl.cli.bench import extras_gpu, on_device, peers, rows
from tridsl.cli.bench.cases import Case
from tridsl.cli.bench.command import report
from tridsl.cli.bench.goals import GPU_GOALS, RATES
from tridsl.cli.bench.measure import US
from tridsl.cli.bench.on_device import REGIME, measure_on_device
from tridsl.cli.bench.peers import cuda
from tridsl.cli.bench.rows import Row
from tridsl.cli.bench.session import Options, Session
from tridsl.cli.settings import Settings
from tridsl.diagnostics import TriError

SOFTWARE = "gpu:software"


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    try:
        device = find(SOFTWARE).device
    except (BackendUnavailable, TriError) as missing:
        pytest.skip(f"no software GPU here: {missing}")
    monkeypatch.setattr(on_device, "WARM_SECONDS", 0.0)
    monkeypatch.setattr(on_device, "SOFTWARE_COPY_BYTES", 1 << 16)
    settings = Settings(cache=tmp_path / "cache", personality=tmp_path / "personality")
    return Session(options=Options(quick=True, device=SOFTWARE, suite="gpu"), settings=settings, device=device, peaks=None, rotation=0)


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """PyTorch on the CPU in the place of a GPU."""
    if not peers.installed()["torch"]:
        pytest.skip("torch is not installed")
    import torch

    def seconds(_: Any, call: Callable[[], Any], runs: int) -> tuple[float, ...]:
        start = time.perf_counter()
        for _ in range(runs):
            call()
        return (time.perf_counter() - start,) * runs

    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    monkeypatch.setattr(torch, "zeros", lambda count, device: torch.empty(count))
    monkeypatch.setattr(cuda, "pytorch", lambda: torch)
    monkeypatch.setattr(cuda, "device_seconds", seconds)
    return torch


def _tiny(row: Row) -> Row:
    """A row of the suite at sizes that take no time; its figure means nothing."""
    case = row.case
    sizes = {name: {"H": 2, "G": 2, "M": 48, "K": 64, "N": 32}.get(name, 16) for name in case.sizes}
    sizes |= {"N": 5000} if set(case.sizes) == {"N"} else {}
    shapes = {name: (6, shape[1] // 16) for name, shape in case.shapes.items()}
    return replace(row, case=replace(case, sizes=sizes, shapes=shapes, flop=case.flop and 1000))


ONE_OF_EACH = {(row.case.operation, row.case.types.get("T")): row for row in rows.GPU}.values()


@pytest.mark.parametrize("row", ONE_OF_EACH, ids=lambda row: row.name)
def test_a_row_of_the_suite(row: Row, session: Session, torch: Any) -> None:
    found = measure_on_device(_tiny(row), session)
    assert found["correct"] is True, found["error"]
    (reading,) = found["readings"].values()
    assert found["regime"] == REGIME and {"copy", "copy kernel", "copy torch"} == set(reading["peaks"])
    theirs = found["peers"].get("torch", 0.0)
    if isinstance(theirs, float):
        assert set(reading["contestants"]) == {US, *(found["peers"])}
    else:
        assert "raises" in theirs, theirs  # on a CPU PyTorch lacks some products
    mine = reading["contestants"][US]
    assert ("flop_per_second" in mine) != ("fraction" in mine)
    if row.goal is not None and (row.against is None or row.against in reading["contestants"]):
        assert found["value"] > 0 and found["verdict"] in ("goal", "floor", "missed")


def test_without_peers(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "pytorch", lambda: None)
    found = measure_on_device(_tiny(next(row for row in rows.GPU if row.name == "f32 matmul 4096")), session)
    assert found["missing"] == ["torch"] and found["value"] is None and found["verdict"] == "no torch here"
    machine = {"description": "a GPU", "clock": "device", "samples": 5, "versions": {}, "peers": {"torch": False}, "target": "", "rotation_bytes": 0, "caches": {}}
    (text,) = report({"machine": machine, "rows": [found]}, as_markdown=True).text
    assert text.startswith("a GPU, *measured*; arrays in the device's memory") and "Not measured: torch." in text
    assert "no torch here" in text
    assert "T(FL)OP/s" in report({"machine": machine, "rows": [found]}).text[0]


def test_a_wrong_answer_anywhere_in_the_part_is_seen(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only some rows are compared."""
    monkeypatch.setattr(on_device, "COMPARED", 64)
    row = replace(next(row for row in rows.GPU if row.name.startswith("softmax f32")), case=Case(operation="stdlib:softmax", shapes={"x": (40, 32)}))
    assert measure_on_device(row, replace(session, options=replace(session.options, peers=False)))["correct"] is True
    original = on_device.Kernel.results

    def off(kernel: on_device.Kernel) -> Any:
        (found,) = original(kernel)
        found[-1] += 1
        return (found,)

    monkeypatch.setattr(on_device.Kernel, "results", off)
    found = measure_on_device(row, session)
    assert found["correct"] is False and "readings" not in found


def test_what_is_kept_is_given_back(session: Session) -> None:
    memory = find(SOFTWARE).backend.driver().open(SOFTWARE).memory  # type: ignore[attr-defined]
    before = memory.used_bytes
    measure_on_device(_tiny(rows.GPU[0]), replace(session, options=replace(session.options, peers=False)))
    assert memory.used_bytes == before


def test_ten_launches_replayed(session: Session) -> None:
    found = extras_gpu.replayed(session)
    assert found["correct"] is True and found["readings"][REGIME]["contestants"][US]["median_seconds"] > 0
    if cuda.pytorch() is None:
        assert found["verdict"] == "no torch here"


def test_a_device_without_memory_of_its_own_is_refused(session: Session) -> None:
    with pytest.raises(TriError, match="keeps no arrays") as caught:
        measure_on_device(_tiny(rows.GPU[0]), replace(session, device=find("cpu").device))
    assert caught.value.code == "E0814"


def test_goals_of_the_suite() -> None:
    named = {id(row.goal) for row in rows.GPU if row.goal} | {id(GPU_GOALS[name]) for name in extras_gpu.EXTRAS_GPU}
    assert named == {id(goal) for goal in GPU_GOALS.values()}
    assert len({row.name for row in rows.GPU}) == len(rows.GPU)
    for goal in GPU_GOALS.values():
        assert goal.goal is not None and goal.goal > goal.floor
        assert goal.unit in RATES or goal.unit in ("% of copy", "x torch")
    assert np.isclose(GPU_GOALS["f16 matmul, sample"].floor, 257.6)
