"""Strategies on spaces with a known best point, and the replayer's own arithmetic."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from statistics import fmean, median

import msgspec
import pytest

from tests.autotune.spaces import recording
from tests.bench.replay import peers
from tridsl.autotune.replay import (
    Header,
    Line,
    Recording,
    Trace,
    decode_point,
    density,
    play,
    quantile,
    random_curve,
    read,
    score,
)
from tridsl.autotune.search import STRATEGIES, Problem, strategy
from tridsl.diagnostics import TriError
from tridsl.dtypes import F32

SEEDS = range(12)
BUDGET = 80


@pytest.mark.parametrize(("kind", "most"), [("rugged", 40), ("plateau", 20), ("cliff", 20), ("noisy", 16)])
def test_ranked_needs_few_trials(kind: str, most: int) -> None:
    """The goals, on made-up spaces whose ranking is off by 15%: far fewer trials than random, and a small gap at the stop."""
    space = recording(kind)
    ours = [play("ranked", space, budget=BUDGET, seed=seed) for seed in SEEDS]
    luck = [play("random", space, budget=BUDGET, seed=seed) for seed in SEEDS]
    trials, others = ([min(t.trials_to(0.95), BUDGET + 1) for t in traces] for traces in (ours, luck))
    assert density(space.truth()) < 0.01
    assert median(trials) <= most and 2 * median(trials) <= median(others)
    assert fmean(t.gap for t in ours) <= min(0.03, fmean(t.gap for t in luck))
    assert fmean(score(t, space.truth()) for t in ours) > 0.3 + fmean(score(t, space.truth()) for t in luck)


def test_ranked_recovers_from_a_ranking_that_says_nothing() -> None:
    """Predictions are random: it must still beat random search, from what it measures."""
    space = recording("cliff", prediction=3.0)
    ours = [play("ranked", space, budget=BUDGET, seed=seed) for seed in SEEDS]
    luck = [play("random", space, budget=BUDGET, seed=seed) for seed in SEEDS]
    assert fmean(t.gap for t in ours) < fmean(t.gap for t in luck)


def test_ranked_stops_by_itself_when_there_is_nothing_to_gain() -> None:
    space = recording("cliff", noise=0.03)
    traces = [play("ranked", space, budget=300, seed=seed) for seed in range(4)]
    assert all(t.stopped and len(t.trials) < 150 for t in traces)


@pytest.mark.parametrize("name", [n for n in STRATEGIES if n != "optuna"])
def test_strategies_are_deterministic_and_never_try_a_point_twice(name: str) -> None:
    space = recording("rugged")
    one, two, other = (play(name, space, budget=30, seed=seed) for seed in (5, 5, 6))
    assert one == two and one.trials != other.trials
    assert len(set(one.trials)) == len(one.trials) <= 30


@pytest.mark.parametrize("name", [n for n in STRATEGIES if n != "optuna"])
def test_failures_are_survived(name: str) -> None:
    """Every point of more than twelve rows crashes."""
    whole = recording("cliff")
    good = {p: r for p, r in whole.ratios.items() if dict(p)["rows"] <= 12}
    space = Recording(header=whole.header, ratios=good, failed={p: "crash" for p in whole.ratios if p not in good}, predicted=whole.predicted)
    trace = play(name, space, budget=40, seed=1)
    assert math.isfinite(trace.gap) and len(trace.trials) <= 40


def test_a_space_of_one_point() -> None:
    point = (("a", 1),)
    space = Recording(header=Header(format=1, name="one", default={"a": 1}), ratios={point: (0.0, 0.0, 0.0)}, predicted={point: 1.0})
    for name in ("ranked", "random", "evolutionary"):
        trace = play(name, space, budget=5, seed=0)
        assert trace.trials == (point,) and trace.stopped and trace.gap == 0


def test_unknown_strategies() -> None:
    space = recording("cliff").space
    with pytest.raises(TriError, match="E0955"):
        strategy("luck", Problem(space=space, predict=lambda p: 1.0))


def test_the_random_curve_is_the_expected_minimum() -> None:
    times = [1.0, 2.0, 4.0, 4.0, 7.0]
    curve = random_curve(map(math.log, times))
    for draws, expected in enumerate(curve, 1):
        assert expected == pytest.approx(fmean(min(c) for c in combinations(times, draws)))


def test_the_score_is_one_for_the_best_at_once_and_about_zero_for_the_average_of_random() -> None:
    space = recording("cliff", noise=1e-6)
    truth = space.truth()
    assert score(Trace(trials=(), gaps=(0.0,), blocks=0, stopped=True), truth) == pytest.approx(1)
    best = math.exp(min(truth.values()))
    expected = Trace(trials=(), gaps=tuple(t / best - 1 for t in random_curve(truth.values())), blocks=0, stopped=True)
    assert score(expected, truth) == pytest.approx(0, abs=1e-9)


def test_quantiles() -> None:
    assert [quantile([3, 1, 2, 4], q) for q in (0.25, 0.5, 0.9, 1.0)] == [1, 2, 4, 4]


def test_recordings_are_read_back(tmp_path: Path) -> None:
    header = Header(format=1, name="tiny", default={"a": 1, "t": {"dtype": "f32"}})
    point = (("a", 1), ("t", F32))
    lines = [
        Line(point=decode_point(point), seconds=(2.0, 4.0), incumbent=(1.0, 2.0), predicted=1e-3),
        Line(point={"a": 2, "t": {"dtype": "f32"}}, outcome="crash", reason="killed by SIGSEGV"),
    ]
    path = tmp_path / "tiny.jsonl"
    path.write_bytes(b"\n".join(msgspec.json.encode(x) for x in (header, *lines)) + b'\n{"point": {"a": 3')
    found = read(path)
    assert found.ratios == {point: (math.log(2), math.log(2))} and found.predicted == {point: 1e-3}
    assert list(found.failed.values()) == ["killed by SIGSEGV"] and found.space.default() == point


@pytest.mark.parametrize("text", [b"", b"not json\n", b'{"format": 9, "name": "x"}\n', b'{"format": 1, "name": "x"}\n{"point": 3}\n{}\n'])
def test_what_is_no_recording_is_refused(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(text)
    with pytest.raises(TriError, match="E0956"):
        read(tmp_path / "bad.jsonl")


@pytest.mark.parametrize("name", peers.STRATEGIES)
def test_kernel_tuners_strategies_run_on_our_recordings(name: str) -> None:
    pytest.importorskip("kernel_tuner", reason="Kernel Tuner (extra `bench`) is not installed")
    trace = peers.play_peer(name, recording("cliff"), budget=40, seed=1)
    assert 10 <= len(trace.trials) <= 40 and math.isfinite(trace.gap)


def test_optuna_searches_the_same_tree() -> None:
    pytest.importorskip("optuna", reason="Optuna (extra `tune`) is not installed")
    one, two = (play("optuna", recording("cliff"), budget=25, seed=2) for _ in range(2))
    assert one == two and len(one.trials) == 25
