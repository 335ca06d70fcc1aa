"""The automatic scheduler's decisions: defaults change nothing, every answer means the same op, wrong ones are refused."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from tests.differential.subjects import WRITTEN, Subject, written_subject
from tests.differential.trial import SPECS, Trial, check_oracle
from tridsl.diagnostics import TriError
from tridsl.passes.specialise import Specialisation
from tridsl.schedule.automatic import automatic, choices, choose
from tridsl.schedule.decisions import Answer

SPEC = SPECS["wide"]
BIG = {"M": 512, "N": 512, "K": 512, "R": 512, "H": 512, "W": 512, "T": 64, "S": 32}


def answers(subject: Subject, random: Random) -> dict[str, Answer]:
    """A random answer to every question, asked one after the other: earlier answers decide what is asked next."""
    given: dict[str, Answer] = {}
    while True:
        open_ = [c for c in choices(subject.op, SPEC, subject.sizes, given) if c.name not in given]
        if not open_:
            return given
        given[open_[0].name] = random.choice(open_[0].values)


@pytest.mark.parametrize("name", WRITTEN)
def test_defaults_spelled_out_give_the_same_schedule(name: str) -> None:
    op = written_subject(name, 0).op
    for sizes in ({}, BIG):
        asked = choices(op, SPEC, sizes, {})
        assert len({c.name for c in asked}) == len(asked)
        assert all(len(c.values) == len(set(c.values)) > 1 and c.about for c in asked)
        assert choose(op, SPEC, sizes, {c.name: c.default for c in asked}) == automatic(op, SPEC, sizes)


@pytest.mark.parametrize("name", WRITTEN)
def test_every_answer_means_the_same(name: str) -> None:
    legal = 0
    for seed in range(12):
        random = Random(f"{name}{seed}")
        subject = written_subject(name, seed)
        schedule = choose(subject.op, SPEC, subject.sizes, answers(subject, random))
        facts = Specialisation(sizes=tuple(subject.sizes.items()) if seed % 2 else (), constants=subject.constants)
        try:
            check_oracle(Trial(subject=subject, seed=seed, spec=SPEC, facts=facts, schedule=schedule))
        except TriError:
            continue
        legal += 1
    assert legal >= 6


def test_answers_reach_the_schedule() -> None:
    op = written_subject("matmul_bf16", 0).op
    steps = {repr(choose(op, SPEC, BIG, {c.name: v})) for c in choices(op, SPEC, BIG, {}) for v in c.values}
    assert len(steps) == 1 + sum(len(c.values) - 1 for c in choices(op, SPEC, BIG, {})), "two answers give one schedule"


def test_wrong_answers_are_refused() -> None:
    op = written_subject("matmul_bf16", 0).op
    with pytest.raises(TriError, match="E0950.*does not decide `C.depth`"):
        choose(op, SPEC, BIG, {"C.pack": False, "C.depth": 64})
    with pytest.raises(TriError, match="E0950.*does not decide `D.rows`"):
        choose(op, SPEC, BIG, {"D.rows": 4})
    for wrong in (1000, "4", True):
        with pytest.raises(TriError, match="E0951"):
            choose(op, SPEC, BIG, {"C.rows": wrong})
    assert choices(op, replace(SPEC, vector_bits=None), BIG, {}) == ()
