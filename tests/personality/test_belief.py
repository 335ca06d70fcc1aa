"""Winners, ties, quarantine and words follow from the evidence alone."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.personality.makers import HERE, NEWER, OTHER_FAMILY, OTHER_UNIT, campaign, failed, key, ok, tiled
from tridsl.personality import belief
from tridsl.personality.belief import explain, rank, winner
from tridsl.personality.candidate import candidate
from tridsl.personality.estimate import estimate
from tridsl.personality.evidence import Trial
from tridsl.personality.fingerprint import Fingerprint, Hashes

A, B, C, D = (tiled(size) for size in (4, 8, 16, 32))
COMPLEX = tiled(8, extra=3)
AT = HERE.hashes


def won(trials: list[Trial], here: Hashes = AT) -> object:
    found = winner(trials, here)
    return found.candidate if found is not None else None


def moved(trials: list[Trial], to: Fingerprint) -> list[Trial]:
    return [msgspec.structs.replace(t, key=msgspec.structs.replace(t.key, fingerprint=to.hashes)) for t in trials]


# Estimates ---------------------------------------------------------------------------------------------------------------


def test_pairs_see_through_drift() -> None:
    """Blocks run at paces 20% apart; the candidates differ by 6%."""
    right = sum(won(campaign({A: 1e-3, B: 0.94e-3, C: 1.2e-3}, seed=seed, noise=0.03)) == B for seed in range(40))
    assert right == 40


def test_intervals_cover() -> None:
    """95% intervals hold the true ratio about that often."""
    inside = total = 0
    for seed in range(60):
        found = estimate(campaign({A: 1e-3, B: 1.1e-3, C: 0.9e-3}, seed=seed, blocks=3, pairs=12))
        assert found is not None
        place = {candidate: i for i, candidate in enumerate(found.candidates)}
        for one, other, ratio in ((B, A, 0.1), (C, A, -0.1), (B, C, 1.1 / 0.9 - 1)):
            interval = found.against(place[one], place[other])
            inside += interval.low <= ratio <= interval.high
            total += 1
    assert 0.88 <= inside / total <= 0.995


def test_candidates_that_never_met_are_compared_through_others() -> None:
    first = campaign({A: 1e-3, B: 0.8e-3}, seed=1, noise=0.02)
    second = campaign({B: 0.8e-3, C: 0.7e-3}, seed=2, noise=0.02)
    found = estimate(first + second)
    assert found is not None
    place = {candidate: i for i, candidate in enumerate(found.candidates)}
    ratio, low, high = found.against(place[C], place[A])
    assert ratio == pytest.approx(-0.3, abs=0.03)
    assert low < ratio < high < 0


def test_more_pairs_in_one_block_do_not_see_what_differs_between_blocks() -> None:
    one = estimate([ok(A, [1e-3] * 5000, (B, [1e-3] * 5000))])
    many = estimate([ok(A, [1e-3] * 50, (B, [1e-3] * 50), block=str(n), time=float(n)) for n in range(100)])
    assert one is not None and many is not None
    assert many.against(0, 1).high < one.against(0, 1).high / 2
    assert 0.004 < one.against(0, 1).high < 0.008


def test_a_ratio_is_the_inverse_of_its_inverse() -> None:
    found = estimate(campaign({A: 1e-3, B: 0.8e-3, C: 0.9e-3}))
    assert found is not None
    assert (1 + found.against(0, 1).ratio) * (1 + found.against(1, 0).ratio) == pytest.approx(1)
    assert found.against(1, 1) == (0, 0, 0)


def test_unpaired_trials_count_for_something() -> None:
    assert won([ok(A, [1e-3] * 5), ok(B, [0.5e-3] * 5)]) == B


def test_sizes_of_one_bucket_do_not_mix_their_times() -> None:
    """A was measured at a small size only, against B; C at a large one: absolute times would call A the fastest."""
    small = campaign({B: 1e-3, A: 1.1e-3}, seed=1)
    large = [msgspec.structs.replace(t, sizes=(("M", 4096),)) for t in campaign({B: 8e-3, C: 7e-3}, seed=2)]
    assert won(small + large) == C


def test_samples_of_one_side_only_are_left_over() -> None:
    assert estimate([ok(A, [1e-3] * 7, (B, [2e-3] * 3))]) is not None
    found = estimate([ok(A, [1e-3] * 7, (B, []))])
    assert found is not None and found.candidates == (A,)
    assert estimate([failed(A, "crash")]) is None


# Winners -----------------------------------------------------------------------------------------------------------------

TRUE = {A: 1e-3, B: 0.9e-3, C: 0.93e-3, D: 2e-3}


@settings(max_examples=30)
@given(st.randoms(use_true_random=False), st.integers(0, 5))
def test_order_and_repetition_of_trials_do_not_matter(draw: random.Random, seed: int) -> None:
    trials = campaign(TRUE, seed=seed) + [failed(D, "crash"), ok(C, [1e-3])] + moved(campaign(TRUE, seed=9), NEWER)
    expected = rank(trials, AT)
    shuffled = list(trials)
    draw.shuffle(shuffled)
    assert rank(shuffled, AT) == expected
    assert explain(shuffled, AT) == explain(trials, AT)


def test_a_lucky_sample_does_not_win() -> None:
    """Not even when it is the simplest: one pair of two seconds beside sixty of the same spread."""
    simplest = candidate(())
    for seed in range(10):
        known = campaign({A: 1e-3, B: 0.9e-3, D: 2e-3}, blocks=6, noise=0.1, seed=seed)
        lucky = ok(simplest, [0.85e-3], (A, [1e-3]))
        assert won([*known, lucky]) == B
        found = rank([*known, lucky], AT)
        assert not next(s for s in found.standings if s.candidate == simplest).tie


def test_the_simplest_of_a_tie_wins() -> None:
    """Two candidates 0.2% apart, noise of 3%: they tie in 95 of 100 cases, and then the simple one wins."""
    right = 0
    for size in range(1, 41):
        simple, complex_ = tiled(size), tiled(size, extra=3)
        trials = campaign({tiled(64): 1e-3, complex_: 0.9e-3, simple: 0.902e-3}, noise=0.03, blocks=4, seed=size)
        found = rank(trials, AT)
        assert belief.SMALLEST_FLOOR <= found.floor <= belief.LARGEST_FLOOR
        assert found.winner is not None
        tied = {s.candidate for s in found.standings if s.tie} == {simple, complex_}
        assert not tied or found.winner.candidate == simple
        right += found.winner.candidate == simple
    assert right >= 36


def test_a_difference_that_is_sure_is_no_tie_below_the_noise_floor() -> None:
    """A comparison of its own without noise, in a neighbourhood with much."""
    quiet = [ok(B, [1e-3 + n * 1e-9 for n in range(100)], (COMPLEX, [0.98e-3 + n * 1e-9 for n in range(100)]))]
    loud = campaign({A: 5e-3, D: 6e-3}, noise=0.1, blocks=1, pairs=100)
    found = rank(quiet + loud, AT)
    assert found.floor > 0.025
    assert found.winner is not None and found.winner.candidate == COMPLEX


def test_a_real_difference_is_no_tie() -> None:
    trials = campaign({A: 1e-3, COMPLEX: 0.9e-3, B: 0.93e-3}, noise=0.01, blocks=10)
    assert won(trials) == COMPLEX


def test_ratios_refer_to_the_winner_or_to_whom_one_asks() -> None:
    trials = campaign(TRUE, noise=0.01, blocks=5)
    by_name = {s.candidate: s for s in rank(trials, AT).standings}
    assert by_name[B].against == (0, 0, 0)
    slow = by_name[D].against
    assert slow is not None and slow.low < 2 / 0.9 - 1 < slow.high
    against_a = next(s for s in rank(trials, AT, incumbent=A).standings if s.candidate == B).against
    assert against_a is not None and against_a.high < 0
    assert [s.candidate for s in rank(trials, AT).standings][-1] == D
    assert by_name[D].seconds == pytest.approx(2e-3, rel=0.2)
    assert by_name[D].trials == 5 and by_name[D].pairs == 50


def test_nothing_measured() -> None:
    assert winner([], AT) is None
    found = rank([failed(A, "crash"), failed(B, "skipped", "no time")], AT)
    assert found.winner is None
    assert [q.candidate for q in found.quarantined] == [A]


@pytest.mark.parametrize("outcome", ["wrong_result", "crash", "device_lost", "compile_error"])
def test_a_failure_is_quarantine(outcome: str) -> None:
    trials = [*campaign(TRUE), failed(B, outcome, "once"), failed(B, outcome, "twice")]  # type: ignore[arg-type]
    found = rank(trials, AT)
    assert found.winner is not None and found.winner.candidate == C
    assert [(q.candidate, q.outcome, q.times, q.reasons) for q in found.quarantined] == [(B, outcome, 2, ("once", "twice"))]
    assert B not in {s.candidate for s in found.standings}


def test_a_timeout_among_good_trials_is_the_machines() -> None:
    assert won([*campaign(TRUE), failed(B, "timeout", "30 s")]) == B
    assert won([ok(B, [1e-4]), ok(A, [1e-3]), failed(B, "timeout", "30 s")]) == A
    assert won([ok(B, [1e-4]), ok(A, [1e-3]), failed(B, "skipped", "no time left")]) == B


# Places ------------------------------------------------------------------------------------------------------------------


def test_new_software_makes_winners_suspect() -> None:
    found = winner(campaign(TRUE), NEWER.hashes)
    assert found is not None and (found.candidate, found.status, found.servable) == (B, "suspect", True)


def test_a_suspect_winner_is_served_until_it_was_tried() -> None:
    old = campaign(TRUE)
    poor = moved([ok(D, [2e-3] * 5)], NEWER)
    found = winner(old + poor, NEWER.hashes)
    assert found is not None and (found.candidate, found.status) == (B, "suspect")
    tried = moved(campaign({D: 2e-3, B: 0.95e-3}), NEWER)
    found = winner(old + tried, NEWER.hashes)
    assert found is not None and (found.candidate, found.status) == (B, "fresh")
    fails = moved([failed(B, "wrong_result", "off")], NEWER)
    found = winner(old + poor + fails, NEWER.hashes)
    assert found is not None and found.candidate == C and found.status == "suspect", "the next best that was never tried"
    skipped = moved([failed(B, "skipped", "no time left")], NEWER)
    found = winner(old + poor + skipped, NEWER.hashes)
    assert found is not None and (found.candidate, found.status) == (B, "suspect"), "skipped is not tried"
    faster = moved([ok(D, [0.2e-3] * 5)], NEWER)
    found = winner(old + faster, NEWER.hashes)
    assert found is not None and (found.candidate, found.status) == (D, "fresh")


def test_a_failure_under_other_software_is_no_verdict_once_tried() -> None:
    old = [failed(B, "crash"), *campaign({A: 1e-3, C: 0.95e-3})]
    assert won(old, NEWER.hashes) == C
    crashed = [failed(B, "crash"), *campaign({A: 1e-3, B: 0.5e-3, C: 0.95e-3})]
    skipped = moved([failed(B, "skipped", "no time left")], NEWER)
    assert won(crashed + skipped, NEWER.hashes) == C, "skipped is not tried"
    assert won([*old, *moved(campaign({A: 1e-3, B: 0.5e-3}), NEWER)], NEWER.hashes) == B


def test_evidence_from_elsewhere_is_a_prior() -> None:
    found = winner(moved(campaign(TRUE), OTHER_UNIT), AT)
    assert found is not None and (found.candidate, found.status, found.servable) == (B, "prior", False)
    imported = [msgspec.structs.replace(t, origin="bundle") for t in campaign(TRUE)]
    found = winner(imported, AT)
    assert found is not None and (found.status, found.servable) == ("prior", False)
    assert won(moved(campaign(TRUE), OTHER_FAMILY)) is None


def test_a_prior_does_not_touch_what_was_measured_here() -> None:
    hostile = [msgspec.structs.replace(t, origin="bundle") for t in (failed(B, "crash"), ok(D, [1e-9] * 100), ok(B, [10.0] * 100))]
    assert won(campaign(TRUE) + hostile) == B


def test_another_operating_point_is_the_same_evidence() -> None:
    trials = [msgspec.structs.replace(t, operating=(("power", "battery"),)) for t in campaign(TRUE)]
    found = winner(trials, AT)
    assert found is not None and (found.candidate, found.status) == (B, "fresh")


def test_a_pin_wins() -> None:
    found = winner(campaign(TRUE), AT, pin=D)
    assert found is not None and (found.candidate, found.status, found.servable) == (D, "pinned", True)
    assert found.seconds == pytest.approx(2e-3, rel=0.2)
    never = winner([], AT, pin=D)
    assert never is not None and (never.candidate, never.seconds) == (D, None)


# Words -------------------------------------------------------------------------------------------------------------------


def test_a_changed_driver_in_one_sentence() -> None:
    old = campaign({A: 1e-3, B: 0.5e-3, C: 0.7e-3}, noise=0.0, drift=0.0)
    new = moved(campaign({B: 0.9e-3, C: 0.465e-3, A: 1e-3}, noise=0.0, drift=0.0), NEWER)
    machines = {f.hashes: f for f in (HERE, NEWER)}
    assert explain(old + new, NEWER.hashes, machines)[:2] == (
        "matmul K=64 M=512: size=16, 465 µs, measured here in 6 trials",
        "driver 25.2→25.3: matmul K=64 M=512 −7%, re-ranked in 6 trials",
    )
    assert explain(old, NEWER.hashes, machines)[:2] == (
        "matmul K=64 M=512: size=8, 500 µs, measured here in 6 trials under other software: used, and to be verified",
        "driver 25.2→25.3: matmul K=64 M=512 is used as it was until it has been measured again",
    )
    kept = explain(old + moved(campaign({B: 0.5e-3, A: 1e-3}, noise=0.0, drift=0.0), NEWER), NEWER.hashes)
    assert kept[1] == "other software: matmul K=64 M=512 ±0.0%, kept in 3 trials"


def test_why_in_words() -> None:
    trials = [*campaign({A: 1e-3, B: 0.5e-3, COMPLEX: 0.5e-3, C: 0.6e-3}, noise=0.0, drift=0.0), failed(D, "crash", "signal 11"), failed(D, "crash", "signal 11")]
    said = explain(trials, AT)
    assert said[0] == "matmul K=64 M=512: size=8, 500 µs, measured here in 11 trials"
    assert said[1].startswith("1 other within the noise floor of ") and said[1].endswith("%: the simplest is taken")
    assert said[2].startswith("next: size=16, +20% (95%: +")
    assert said[3] == "2 slower ones, up to +100%"
    assert said[4] == "not run: size=32: crash 2 times: signal 11"
    assert explain([], AT) == ("this op: nothing that works was measured; the default is used",)
    assert "a hint until it was run here" in explain([msgspec.structs.replace(t, origin="x.jsonl") for t in trials], AT)[0]
    assert explain(trials, AT, pin=D)[0] == "matmul K=64 M=512: size=32, never measured, pinned by the user"


def test_numbers_in_words() -> None:
    assert [belief.percent(x) for x in (-0.07, 0.004, 0.12, 0.0, -0.0196)] == ["−7%", "+0.4%", "+12%", "±0.0%", "−2.0%"]
    assert [belief.duration(x) for x in (1.5, 1.84e-3, 2.5e-6, 3e-8)] == ["1.5 s", "1.84 ms", "2.5 µs", "30 ns"]


def test_a_subject_with_other_shapes_has_other_evidence() -> None:
    assert key("M=1").subject != key("M=2").subject


extremes = st.lists(st.floats(5e-324, 1e6), min_size=1, max_size=4)


@given(st.lists(st.tuples(st.integers(1, 6), extremes, st.none() | st.tuples(st.integers(1, 6), extremes)), max_size=8))
def test_no_times_are_too_strange(drawn: list[tuple[int, list[float], tuple[int, list[float]] | None]]) -> None:
    trials = [ok(tiled(who), samples, (tiled(beside[0]), beside[1]) if beside else None, time=float(n)) for n, (who, samples, beside) in enumerate(drawn)]
    found = rank(trials, AT)
    assert (found.winner is None) == (not trials)
    assert explain(trials, AT)
    for standing in found.standings:
        assert standing.against is None or standing.against.low <= standing.against.ratio <= standing.against.high
