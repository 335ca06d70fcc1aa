"""Which launches run as one on a device, and what crosses for them."""

from __future__ import annotations

from tests.program.test_fuse import EXP, PLUS, SCALE, X, graph
from tridsl.program.planning import plan
from tridsl.program.runs import Run, runs

CHAIN = graph(X, [("a", EXP, ("x",)), ("b", EXP, ("a",)), ("c", PLUS, ("a", "b")), ("d", SCALE, (2.0, "c"))], ("b", "d"))


def test_neighbours_on_a_recording_device_are_one_run() -> None:
    assert runs(CHAIN, ("gpu:0",) * 4, {"gpu:0"}) == (Run(first=0, end=4, uploads=("x",), downloads=("b", "d")),)
    assert [run.end - run.first for run in runs(CHAIN, ("gpu:0",) * 4, ())] == [1, 1, 1, 1]


def test_a_launch_elsewhere_divides_a_run_and_what_it_needs_crosses() -> None:
    found = runs(CHAIN, ("gpu:0", "gpu:0", "cpu", "gpu:0"), {"gpu:0"})
    assert [(run.first, run.end) for run in found] == [(0, 2), (2, 3), (3, 4)]
    assert found[0].uploads == ("x",) and found[0].downloads == ("a", "b")
    assert found[2].uploads == ("c",) and found[2].downloads == ("d",)


def test_a_plan_counts_what_crosses_once() -> None:
    one = graph(X, [], ("x",)).value("x").bytes
    moved = [launch.moved_bytes for launch in plan(CHAIN, ("gpu:0",) * 4, {"cpu"}, {"gpu:0"}).launches]
    assert moved == [one, one, 0, one]  # x up, b down, d down
    assert [launch.moved_bytes for launch in plan(CHAIN, ("gpu:0",) * 4, {"cpu"}).launches] == [2 * one, 2 * one, 3 * one, 2 * one]
