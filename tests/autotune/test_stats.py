"""Statistics against simulated machines: quiet, in bursts, drifting, and beside a process that takes the processor in turns."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from statistics import median

import pytest

from tridsl.autotune.stats import (
    LEAST_FLOOR,
    against_itself,
    interval,
    log_ratios,
    noise_floor,
    pairs_needed,
    spread,
    ties,
)

Machine = Callable[[float, float, Random], float]


def quiet(seconds: float, clock: float, random: Random) -> float:
    return seconds * math.exp(random.gauss(0, 0.01))


def bursts(seconds: float, clock: float, random: Random) -> float:
    """One call in ten takes up to three times as long."""
    return quiet(seconds, clock, random) * (1 + 2 * random.random() * (random.random() < 0.1))


def drifting(seconds: float, clock: float, random: Random) -> float:
    """The clock falls by 30% over the run."""
    return quiet(seconds, clock, random) * (1 + 0.3 * min(1.0, clock))


def hog(seconds: float, clock: float, random: Random) -> float:
    """Somebody else computes half of the time, in slices longer than a turn."""
    return quiet(seconds, clock, random) * (1.8 if math.sin(clock * 40) > 0 else 1.0) * math.exp(random.gauss(0, 0.04))


def blocks(machine: Machine, factor: float, count: int, seed: int) -> tuple[list[float], list[float]]:
    """A candidate and an incumbent in turns, in random order; the clock goes on with each."""
    random = Random(seed)
    clock = 0.0
    pairs = []
    for _ in range(count):
        turns = {}
        for who in random.sample((factor, 1.0), 2) if factor != 1.0 else (1.0, 2.0):
            turns[who] = machine(1.0 if who == 2.0 else who, clock, random)
            clock += 1 / (2 * count)
        pairs.append((turns[factor], turns[1.0 if factor != 1.0 else 2.0]))
    return [a for a, _ in pairs], [b for _, b in pairs]


@pytest.mark.parametrize("machine", [quiet, bursts, drifting, hog])
def test_intervals_cover_the_truth(machine: Machine) -> None:
    hits = 0
    for seed in range(200):
        found = interval(log_ratios(*blocks(machine, 0.9, 12, seed)))
        hits += found.low <= math.log(0.9) <= found.high
    assert hits >= 180  # 95% asked; 90% with the luck of two hundred


@pytest.mark.parametrize("machine", [quiet, bursts, drifting])
def test_equal_candidates_are_rarely_told_apart(machine: Machine) -> None:
    apart = sum(interval(log_ratios(*blocks(machine, 1.0, 10, seed))).low > 0 for seed in range(200))
    assert apart <= 14


def test_pairs_see_through_a_drift_that_fools_single_series() -> None:
    """Ten runs of one, then ten of the other: the drift looks like a difference. In pairs it does not."""
    random = Random(0)
    one = [drifting(1.0, n / 20, random) for n in range(10)]
    two = [drifting(1.0, (10 + n) / 20, random) for n in range(10)]
    assert median(two) / median(one) > 1.1
    found = interval(log_ratios(*blocks(drifting, 1.0, 10, 0)))
    assert abs(found.middle) < 0.03


def test_intervals_of_few_pairs_say_how_little_they_know() -> None:
    assert interval([0.1]).confidence == 0 and interval([0.1]).middle == pytest.approx(0.1)
    assert interval([0.1, 0.2, 0.3]).confidence == pytest.approx(0.75)
    six = interval([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    assert six.confidence == pytest.approx(1 - 2 / 64) and (six.low, six.high) == (0.01, 0.06)
    assert six.percent == "+3.6% (+1.0 to +6.2)"
    with pytest.raises(ValueError, match="no ratios"):
        interval([])


def test_one_wild_block_moves_nothing() -> None:
    calm = [0.10, 0.11, 0.09, 0.10, 0.12, 0.10, 0.11, 0.09]
    assert interval([*calm, 3.0]).middle == pytest.approx(interval(calm).middle, abs=0.01)
    assert spread([*calm, 3.0]) < 0.03


def test_the_noise_floor_is_what_equal_candidates_differ_by() -> None:
    for machine in (quiet, bursts):
        random = Random(1)
        series = [machine(1.0, 0.0, random) for _ in range(400)]
        floor = noise_floor(against_itself(series), 10)
        beyond = sum(abs(median(log_ratios(*blocks(machine, 1.0, 10, seed)))) > floor for seed in range(300))
        assert beyond <= 0.12 * 300
    assert noise_floor([0.0] * 10, 10) == LEAST_FLOOR
    assert noise_floor([0.1, -0.1] * 8, 5) > noise_floor([0.1, -0.1] * 8, 50)


def test_pairs_needed() -> None:
    """The research note's table: a spread of 5% separates 5% in 8 pairs and 2% in 49; 20% needs 126 for 5%."""
    assert [pairs_needed(*x) for x in ((0.05, 0.05), (0.02, 0.05), (0.05, 0.2))] == [8, 50, 126]


def test_ties_and_refused_times() -> None:
    assert ties([0.2, 0.01, 0.0, 0.5], 0.02) == (1, 2)
    with pytest.raises(ValueError, match="not positive"):
        log_ratios([0.0], [1.0])
    with pytest.raises(ValueError, match="cannot be paired"):
        log_ratios([1.0], [])
