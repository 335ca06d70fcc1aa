"""Measuring at tiny sizes: everybody's answers, the document, filters, cold sets. Nothing says how fast anything is."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tridsl.api.devices import find
from tridsl.cli.bench import arrays, extras, peers, rows, sampling
from tridsl.cli.bench.cases import Case
from tridsl.cli.bench.contest import agreement, our_call, prepare, reference
from tridsl.cli.bench.measure import US, measure, verdict
from tridsl.cli.bench.peak_kernels import BLOCKS
from tridsl.cli.bench.peaks import CHAINS, Peaks, rates
from tridsl.cli.bench.rows import Row
from tridsl.cli.bench.sampling import interleave
from tridsl.cli.bench.session import Options, Session
from tridsl.cli.settings import Settings
from tridsl.cli.targets import services_for
from tridsl.diagnostics import TriError
from tridsl.dtypes import BF16, F32, I8, I16, DType
from tridsl.ir.evaluate import evaluate_op


def _attention(queries: int, keys: int, dtype: DType = F32, groups: int = 2, **scalars: Any) -> Case:
    sizes = {"H": 4, "G": groups, "S": queries, "L": keys, "D": 4, "E": 5}
    return Case(operation="stdlib:attention", sizes=sizes, types={"T": dtype}, scalars={"scale": 0.5, **scalars})


SMALL: tuple[Case, ...] = (
    rows.matmul(20, 32, 16), rows.matmul(20, 32, 16, BF16), rows.matmul(24, 32, 16, I8), rows.matmul(20, 32, 16, I16),
    *(Case(operation=f"stdlib:{op}", shapes={"x": (5, 40)}) for op in ("softmax", "layernorm", "rmsnorm")),
    _attention(6, 9, causal=True), _attention(9, 9, causal=True, groups=4), _attention(1, 9, groups=4), _attention(6, 9, BF16),
    Case(operation="stdlib:tgemm", sizes={"M": 32, "K": 48, "N": 24}), Case(operation="stdlib:tgemv", sizes={"M": 32, "K": 48}, scalars={"sx": 0.1}),
    *(Case(operation=f"stdlib:{op}", sizes={"H": 20, "W": 30}, scalars={"threshold": 100}) for op in ("edges", "sobel_edges")),
    Case(operation="stdlib:above", sizes={"N": 500}, scalars={"t": 0.5}), Case(operation="stdlib:saxpy", sizes={"N": 500}, scalars={"a": 2.0}),
    Case(operation="stdlib:cumsum", sizes={"N": 500}), Case(operation="stdlib:gelu", sizes={"N": 500}),
    Case(operation="bench:waves", sizes={"N": 500}, scalars={"a": 1.5, "b": 0.5}), Case(operation="bench:add", sizes={"N": 16}),
)  # fmt: skip


@pytest.mark.parametrize("case", SMALL, ids=lambda c: f"{c.operation} {c.title}")
@pytest.mark.parametrize("library", list(peers.LIBRARIES))
def test_peers_compute_the_same(case: Case, library: str, tmp_path: Path) -> None:
    """Every peer, and (beside NumPy, which is always here) the op itself, against the interpreter in f64."""
    if not peers.installed()[library]:
        pytest.skip(f"{library} is not installed")
    name = case.operation.partition(":")[2]
    known = [(who, peer) for who, owner, peer in peers.peers_of(name) if owner == library]
    if not known:
        return
    services = services_for(Settings(cache=tmp_path))
    ready = prepare(case, services)
    exact = reference(ready)
    assert library != "numpy" or agreement(ready, our_call(ready, services, "cpu", 1)(), exact).right
    for who, peer in known:
        call = peer(ready.plain, [arrays.aligned(o.shape, o.dtype) for o in ready.outs])
        if call is not None:
            found = agreement(ready, call(), exact, peer=True)
            assert found.right, f"{who}: {found.reason}"


@pytest.mark.parametrize("case", [c for c in SMALL if c.operation.partition(":")[2] in peers.NUMPY], ids=lambda c: f"{c.operation} {c.title}")
def test_formulas_are_what_the_interpreter_computes(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference of large sizes against the reference of small ones."""
    ready = prepare(case, services_for(Settings(cache=tmp_path)))
    interpreted = reference(ready)
    monkeypatch.setattr("tridsl.cli.bench.contest.FORMULA_WORK", -1)
    by_formula = reference(ready)
    for tensor in ready.op.outputs:
        np.testing.assert_allclose(by_formula[tensor.name].astype(np.float64), interpreted[tensor.name][: len(by_formula[tensor.name])].astype(np.float64), rtol=1e-6, atol=1e-6)


def test_formulas_cover_the_table() -> None:
    assert {row.case.operation.partition(":")[2] for row in rows.CPU} <= set(peers.NUMPY)


def _session(tmp_path: Path, **options: Any) -> Session:
    device = find("cpu").device
    settings = Settings(cache=tmp_path / "cache", personality=tmp_path / "personality")
    cores = tuple(sorted(os.sched_getaffinity(0)))
    peaks = Peaks(device=device, threads=1, rotation=1 << 20)
    return Session(options=Options(**options), settings=settings, device=device, peaks=peaks, rotation=1 << 18, everything=cores)


def _tiny(name: str) -> Row:
    """A row of the table at sizes that take no time; its figure means nothing."""
    row = next(row for row in rows.CPU if row.name == name)
    small = next(c for c in SMALL if c.operation == row.case.operation and c.types.get("T", F32) == row.case.types.get("T", F32))
    return replace(row, case=small)


@pytest.mark.parametrize("name", ["f32 matmul 1024", "int8 matmul 512", "ternary vector 2560x6912", "softmax 64x512", "above 10^7", "edges 1920x1080"])
def test_a_row_of_the_document(name: str, tmp_path: Path) -> None:
    found = measure(_tiny(name), _session(tmp_path, quick=True))
    assert found["name"] == name and found["correct"] is True and found["goal"]["unit"]
    (regime,) = found["readings"]  # quick: only what the goal is for
    assert regime == found["regime"]
    reading = found["readings"][regime]
    assert {US, "numpy"} <= set(reading["contestants"])
    assert {"read", "read_plain", "read_streams", "copy", "copy_plain", "copy_around", "fma"} <= set(reading["peaks"])
    assert (reading["rotated_bytes"] > 0) == (regime == "cold")
    if found["value"] is not None:
        assert found["verdict"] in ("goal", "floor", "missed") and found["value"] > 0
        assert all(one["value"] > 0 and one["fraction"] > 0 for one in reading["contestants"].values())
    assert set(found["missing"]) == {who for who, library, _ in peers.peers_of(name_of(found)) if not peers.installed()[library]}


def name_of(found: dict[str, Any]) -> str:
    return str(found["operation"].partition(":")[2])


@pytest.mark.parametrize(("regime", "taken"), [("goal", ["cold"]), ("hot", ["hot"]), ("cold", ["cold"]), ("both", ["hot", "cold"])])
def test_which_readings_are_taken(regime: str, taken: list[str], tmp_path: Path) -> None:
    found = measure(_tiny("ternary vector 2560x6912"), _session(tmp_path, samples=3, regime=regime, peers=False))
    assert list(found["readings"]) == taken and ("verdict" in found) == ("cold" in taken)


def test_both_regimes_and_the_stages_without_quick(tmp_path: Path) -> None:
    found = measure(_tiny("rmsnorm 64x512"), _session(tmp_path, samples=3))
    assert list(found["readings"]) == ["hot", "cold"] and found["readings"]["hot"]["contestants"][US]["samples"] == 3
    times = found["compile"]
    assert times["build_seconds"] == times["stages"]["build"] and times["cold_seconds"] > times["warm_seconds"] > 0


def test_a_wrong_peer_a_failing_and_a_slow_one_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(a: peers.Arguments, out: Sequence[Any]) -> Any:
        return lambda: out[0]

    def failing(a: peers.Arguments, out: Sequence[Any]) -> Any:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(peers, "LIBRARIES", {"numpy": {"softmax": wrong, "softmax:failing": failing, "softmax:slow": peers.NUMPY["softmax"], "softmax:other": lambda a, out: None}})
    monkeypatch.setattr("tridsl.cli.bench.session.QUICK_SLOW_SECONDS", 0.0)
    found = measure(_tiny("softmax 64x512"), _session(tmp_path, quick=True))
    assert list(found["readings"]["hot"]["contestants"]) == [US]
    assert "in place of" in found["peers"]["numpy"] and found["peers"]["numpy failing"] == "raises RuntimeError: no such kernel"
    assert found["slow"]["numpy slow"]["seconds"] > 0 and "numpy other" not in found["peers"]


def test_a_wrong_answer_of_ours_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def off(ready: Any) -> Any:
        exact = evaluate_op(ready.whole, {n: v.reshape((1,) * (2 - v.ndim) + v.shape) if hasattr(v, "ndim") else v for n, v in ready.plain.items()}, ready.sizes)
        return {name: value + 1 for name, value in exact.items()}

    monkeypatch.setattr("tridsl.cli.bench.measure.reference", off)
    found = measure(_tiny("softmax 64x512"), _session(tmp_path, quick=True))
    assert found["correct"] is False and "readings" not in found and "verdict" not in found


def test_the_smallest_call(tmp_path: Path) -> None:
    found = extras.EXTRAS["call on three arrays of 16"](_session(tmp_path, quick=True))
    assert found["correct"] and found["goal"]["unit"] == "ns" and {US, "numpy"} <= set(found["readings"]["hot"]["contestants"])


def test_awkward_operands(tmp_path: Path) -> None:
    found = extras.operands(_session(tmp_path, quick=True), name="operands: x", case=Case(operation="stdlib:softmax", shapes={"x": (5, 40)}), tensor="x")
    values = {name: one["value"] for name, one in found["readings"]["hot"]["contestants"].items()}
    assert list(values) == ["row-major", "4 bytes off a line", "rows apart", "column-major"] and values["row-major"] == 1


def test_two_threads_need_two_cores(tmp_path: Path) -> None:
    session = _session(tmp_path, quick=True)
    name = "two threads over one, matmul 1024"
    found = extras.scaling(replace(session, everything=session.everything[:1]), name=name, case=rows.matmul(20, 30, 10))
    assert "two cores" in found["error"] and "readings" not in found
    if len(session.everything) > 1:
        before = os.sched_getaffinity(0)
        found = extras.scaling(session, name=name, case=rows.matmul(20, 30, 10))
        assert os.sched_getaffinity(0) == before
        assert found["correct"] and found["value"] > 0 and f"{US}{extras.ALONE}" in found["readings"]["hot"]["contestants"]


def test_filters() -> None:
    names = [row.name for row in rows.CPU]
    assert rows.matching(names, ()) == tuple(names)
    assert rows.matching(names, ("SOFTMAX",)) == ("softmax 4096x4096", "softmax 1024x1024", "softmax 64x512")
    assert set(rows.matching(names, ("cumsum", "int16"))) == {"cumsum 10^7", "int16 matmul 512", "int16 matmul 1024", "int16 matmul 2048"}
    with pytest.raises(TriError, match="no row is named like soft or hard"):
        rows.matching(["one"], ("soft", "hard"))


def test_the_figure_of_a_row() -> None:
    by = {row.name: row for row in rows.CPU}
    assert by["f32 matmul 512"].value(2 * 512**3 / 50e9, {"fma": 100e9}, 0) == pytest.approx(50)
    assert by["ternary vector 2560x6912"].value(1e-3, {"read": 10e9}, 5_000_000) == pytest.approx(50)
    assert by["edges 1920x1080"].value(1080 * 1920 * 1e-9, {}, 0) == pytest.approx(1)
    assert by["f32 matmul 8"].value(2e-6, {}, 0) == pytest.approx(2)
    assert by["int8 matmul 512"].value(1e-3, {"fma": 1e9}, 0) is None  # a processor without the instruction
    assert by["int8 matmul 512"].value(2 * 512**3 / 50e9, {"vnni": 100e9, "amx_i8": 1000e9}, 0) == pytest.approx(5)
    assert by["ternary product 2560x6912, 8 tokens"].value(1e-3, {"vnni": 1e9, "amx_i8": 1e12}, 0) == by["ternary product 2560x6912, 8 tokens"].value(1e-3, {"vnni": 1e9}, 0)


def test_probes_reach_something(tmp_path: Path) -> None:
    peaks = Peaks(device=find("cpu").device, threads=1, rotation=1 << 20)
    probes = [p for p in map(peaks.arithmetic, CHAINS) if p is not None]
    probes += [p for p in map(peaks.blocks, BLOCKS) if p is not None]
    assert probes[0].name == "fma"
    for cold in (False, True):
        probes += peaks.memory(30_000, cold=cold)
    for probe in probes:
        probe.call(0)
        probe.call(12345)
        assert probe.amount > 0
    hot = peaks.memory(30_000, cold=False)
    found = rates(hot, interleave({p.name: p.call for p in hot}, 3))
    assert found["copy"] == max(found["copy_plain"], found["copy_around"])
    assert found["read"] == max(found["read_plain"], found["read_streams"])


def test_what_reading_alone_allows_stands_beside_a_floor_above_it() -> None:
    row = next(r for r in rows.CPU if r.name == "f32 matmul 8x4096x4096")
    moved = 4 * 4096 * (4096 + 16)

    def judged(read: float) -> dict[str, Any]:
        peaks = {"fma": {"rate": 150e9}, "read": {"rate": read}}
        return verdict(row, {"hot": {"contestants": {US: {"value": 30.0}}, "peaks": peaks}}, moved)

    fast = judged(100e9)
    assert "ceiling" not in fast and fast["verdict"] == "missed", "the roofline is the peak"
    slow = judged(17e9)
    assert slow["absolute"] == "missed" and slow["ceiling"] == pytest.approx(100 * 2 * 8 * 4096**2 / (moved / 17e9) / 150e9)
    assert slow["share_of_roofline"] == pytest.approx(100 * 30.0 / slow["ceiling"]) and slow["verdict"] == "floor"
    assert judged(20e9)["verdict"] == "missed", "56% of what reading allows"


def test_arrays_begin_where_they_should() -> None:
    for dtype in (np.float32, ml_dtypes.bfloat16, np.int8):
        assert arrays.aligned((3, 5), dtype).ctypes.data % 64 == 0
        assert arrays.aligned((3, 5), dtype, skew=4).ctypes.data % 64 == 4
    arguments, outs = {"x": np.arange(6.0).reshape(2, 3), "a": 2.0}, (np.zeros(4),)
    held = arrays.sets(arguments, outs, 1000, 10_000)
    assert len(held) == 10 and len({a["x"].ctypes.data for a, _ in held}) == 10
    assert all(np.array_equal(a["x"], arguments["x"]) and a["a"] == 2.0 and o[0].shape == (4,) for a, o in held)
    assert len(arrays.sets(arguments, outs, 1 << 30, 1000)) == 2


def test_rotation_is_bounded() -> None:
    spec = find("cpu").device.spec
    assert arrays.rotation(replace(spec, l3_bytes=32 << 20, memory_bytes=1 << 36)) == 128 << 20
    assert arrays.rotation(replace(spec, l3_bytes=260 << 20, memory_bytes=1 << 36)) == 1 << 30
    assert arrays.rotation(replace(spec, l3_bytes=260 << 20, memory_bytes=1 << 30)) == 1 << 27


def test_a_sample_is_not_charged_for_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that waits takes time, but none of this process: it stands for one that was put off its core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:1])
    try:
        switches = iter(range(10**9))
        honest = interleave({"waits": lambda number: time.sleep(0.002)}, 3)["waits"]
        monkeypatch.setattr("tridsl.cli.bench.sampling.getrusage", lambda who: SimpleNamespace(ru_nivcsw=next(switches)))
        found = interleave({"waits": lambda number: time.sleep(0.002)}, 3)["waits"]
    finally:
        os.sched_setaffinity(0, before)
    assert found.disturbed == 3 and found.data()["disturbed"] == 3
    assert 0 < found.median < 0.002 <= honest.p10


def test_everybody_shares_one_count() -> None:
    """A buffer that one has used comes to the next one a whole round later."""
    seen: list[int] = []
    interleave(dict.fromkeys(("a", "b"), seen.append), 3, warm=False)
    assert seen == list(range(len(seen)))


class Clock:
    """Goes on by what calls say they take, so that no other program has a part in it."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def lasts(self, milliseconds: float) -> None:
        self.now += round(milliseconds * 1e6)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(sampling, "perf_counter_ns", found)
    return found


LONG = 40.0
"""Milliseconds of a call that is not made before its sample."""


@pytest.mark.parametrize(("milliseconds", "calls"), [(0.6, 3 * (2 + 1)), (4, 3 * (5 + 1)), (16, 3 * (2 + 1)), (32, 3)])
def test_short_calls_find_their_data_where_they_left_them(clock: Clock, milliseconds: float, calls: int) -> None:
    """Before each of three samples, behind what others put into the caches: once or twice for a core's own, again and again for the last
    one, which one pass does not bring back; a long call would hardly notice."""
    order: list[str] = []

    def lasts(name: str, milliseconds: float) -> None:
        order.append(name)
        clock.lasts(milliseconds)

    interleave({"a": lambda number: lasts("a", milliseconds), "b": lambda number: lasts("b", LONG)}, 3)
    assert order[order.index("b") :].count("a") == calls  # the warm-up of "a" is over


def test_who_is_alone_is_not_made_before_its_samples(clock: Clock) -> None:
    calls: list[int] = []

    def lasts(number: int) -> None:
        calls.append(number)
        clock.lasts(4)

    interleave({"a": lasts}, 3)
    assert len(calls) == 5 + 3


def test_very_short_calls_are_repeated_until_the_clock_is_theirs(clock: Clock) -> None:
    calls: list[int] = []

    def lasts(number: int) -> None:
        calls.append(number)
        clock.lasts(0.1)

    other: list[int] = []

    def others(number: int) -> None:
        other.append(len(calls))
        clock.lasts(LONG)

    interleave({"a": lasts, "b": others}, 3)
    before = max(n for n in set(other) if n < len(calls))  # the last sample of "a" has others between it and the one before
    assert len(calls) - before == 10 + 3, "a sample of 0.3 ms, and the millisecond in front of it"


def test_nobody_is_always_behind_the_same_one(clock: Clock) -> None:
    """Every round has everybody once, in an order that another run would have, too."""

    def rounds() -> list[str]:
        order: list[str] = []

        def lasts(name: str) -> None:
            order.append(name)
            clock.lasts(LONG)

        interleave({name: lambda number, name=name: lasts(name) for name in "abc"}, 6)  # type: ignore[misc]  # mypy has no types for defaults of a lambda
        return ["".join(order[n : n + 3]) for n in range(len(order) - 18, len(order), 3)]

    first = rounds()
    assert all(sorted(one) == ["a", "b", "c"] for one in first) and len(set(first)) > 2
    assert rounds() == first


def test_an_empty_cache_is_empty_whatever_the_user_has_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRIDSL_CACHE", str(tmp_path / "full"))
    monkeypatch.setattr(extras.peers, "installed", lambda: {"jax": False, "numba": False})
    monkeypatch.setattr(extras, "_processes", lambda session: 1)
    seen: list[dict[str, str]] = []
    real = extras._process
    monkeypatch.setattr(extras, "_process", lambda code, **variables: (seen.append(variables), real(code, **variables))[1])
    extras.first_softmax(SimpleNamespace(), warm=False)  # type: ignore[arg-type]  # only how many processes it wants
    (variables,) = seen
    assert Path(variables["TRIDSL_CACHE"]).parent != tmp_path and not (tmp_path / "full").exists()
