"""Goals and verdicts: fractions stand as written, times are carried over by the peers."""

from __future__ import annotations

import pytest

from tridsl.cli.bench import extras, rows
from tridsl.cli.bench.goals import GOALS, UNITS, Goal, judge
from tridsl.cli.bench.peak_kernels import CHAINS
from tridsl.cli.bench.peers import ELSEWHERE, LIBRARIES

SHARE = Goal(unit="% of fma", floor=80, goal=90, peers={"numpy": 85})
TIME = Goal(unit="ns/pixel", floor=0.5, goal=0.2, peers={"halide": 0.25, "opencv": 1.0})


@pytest.mark.parametrize(("value", "verdict"), [(95, "goal"), (90, "goal"), (89.9, "floor"), (80, "floor"), (79.9, "missed")])
def test_a_fraction_is_judged_as_written(value: float, verdict: str) -> None:
    found = judge(SHARE, value, {"numpy": 200.0})
    assert (found.counts, found.absolute, found.by_peer) == (verdict, verdict, None)


def test_a_time_is_carried_over_by_the_best_peer() -> None:
    """Halide took 0.25 where the floor is 0.5, so twice its time here is the floor here."""
    slow_machine = {"halide": 0.5, "opencv": 1.8}
    assert judge(TIME, 0.9, slow_machine).data() == {
        "verdict": "floor", "absolute": "missed", "by_peer": "floor", "floor_of_peer": 1.0, "through": "halide",
    }  # fmt: skip
    assert judge(TIME, 1.1, slow_machine).counts == "missed"
    assert judge(TIME, 0.4, slow_machine).counts == "goal"
    fast_machine = {"halide": 0.1, "opencv": 0.4}
    assert (judge(TIME, 0.3, fast_machine).counts, judge(TIME, 0.3, fast_machine).absolute) == ("missed", "floor")


def test_a_weaker_field_does_not_lower_the_bar() -> None:
    """Without Halide the factor is that of OpenCV, which took 1.0 where the floor is 0.5."""
    found = judge(TIME, 0.8, {"opencv": 1.0})
    assert (found.counts, found.bound, found.through) == ("missed", 0.5, "opencv")


def test_the_best_of_the_run_counts_whoever_it_is() -> None:
    found = judge(TIME, 0.9, {"halide": 0.5, "numba": 0.25})
    assert (found.counts, found.bound) == ("missed", 0.5)


def test_variants_of_a_library_are_that_library() -> None:
    assert judge(TIME, 0.4, {"halide by hand": 0.25}).through == "halide"


@pytest.mark.parametrize("measured", [{}, {"numba": 0.1}])
def test_without_a_peer_of_the_table_the_floor_stands(measured: dict[str, float]) -> None:
    found = judge(TIME, 0.45, measured)
    assert (found.counts, found.absolute, found.bound) == ("floor", "floor", None)


def test_a_share_of_the_roofline_counts_where_reading_bounds_the_row() -> None:
    """The figure stays the fraction of the peak, and its own verdict stands beside."""
    goal = Goal(unit="% of fma", floor=60, goal=85, peers={"torch": 24}, roofline=True)
    found = judge(goal, 30.0, {"torch": 20.0}, ceiling=40.0)
    assert (found.counts, found.absolute, found.share) == ("floor", "missed", 75.0)
    assert found.data()["share_of_roofline"] == 75.0 and found.data()["absolute"] == "missed"
    assert judge(goal, 23.9, {}, ceiling=40.0).counts == "missed" and judge(goal, 34.0, {}, ceiling=40.0).counts == "goal"
    fast = judge(goal, 70.0, {}, ceiling=140.0)
    assert (fast.counts, fast.share) == ("floor", None) and "share_of_roofline" not in fast.data()
    assert judge(SHARE, 30.0, {}, ceiling=40.0).counts == "missed", "only where the goal says so"
    assert [name for name, g in GOALS.items() if g.roofline] == ["f32 matmul 8x4096x4096"]


def test_as_good_as_the_peer() -> None:
    goal = Goal(unit="x", floor=1.0, goal=None, peers={})
    assert [judge(goal, v, {"torch": 1.2}).counts for v in (1.3, 1.1, 0.9)] == ["goal", "floor", "missed"]
    assert judge(goal, 1.3, {}).counts == "floor"


def test_every_goal_has_its_row_and_a_row_its_goal() -> None:
    named = {row.name for row in rows.CPU} | set(extras.EXTRAS)
    assert set(GOALS) <= named
    assert {n for n in named if n not in GOALS} == {n for n in extras.EXTRAS if n.startswith("operands: ")}
    assert len(named) == len(rows.CPU) + len(extras.EXTRAS)


def test_goals_are_better_than_floors_and_peaks_exist() -> None:
    peers = set(LIBRARIES) | {name for names in ELSEWHERE.values() for name in names}
    for name, goal in GOALS.items():
        if goal.goal is not None:
            assert goal.goal >= goal.floor if goal.more else goal.goal <= goal.floor, name
        assert goal.unit in UNITS or goal.unit == "x" or goal.unit.removeprefix("% of ") in {*CHAINS, "read", "copy"}, name
        assert set(goal.peers) <= peers and list(goal.peers.values()) == sorted(goal.peers.values(), reverse=goal.more), name
