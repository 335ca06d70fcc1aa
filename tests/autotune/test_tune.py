"""Whole sessions on tiny ops, with few candidates: that the machinery works, not how fast anything is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.autotune.kernels import MATMUL, SAXPY, TEXT, cpu, module, op
from tests.autotune.planted import make, planted
from tridsl.autotune.measure import Limits
from tridsl.autotune.request import Memory, Progress, Request
from tridsl.autotune.space import Asked, Space, automatic_space
from tridsl.autotune.tune import tune
from tridsl.autotune.worker import Job, Prepared
from tridsl.diagnostics import TriError
from tridsl.personality.store import Store
from tridsl.schedule.steps import Schedule

ROOT = Path(__file__).parents[2]
QUICK = Limits(turn_seconds=0.0005, run_seconds=1.0)
FOUR = {"C.rows": [2, 4], "C.vectors": [1, 2], "C.pack": [False]}


def request() -> Request:
    return Request(op=op(MATMUL), device=cpu(), sizes={"M": 16, "N": 32, "K": 8}, threads=1)


def space(what: Request) -> Space:
    return automatic_space(what.op, replace(what.device.spec, cores=1), what.sizes).only(FOUR)


def test_a_session_measures_keeps_and_goes_on(tmp_path: Path) -> None:
    what = request()
    events: list[Progress] = []
    store = Store(tmp_path / "personality")
    first = tune(
        what, budget_seconds=30, seed=3, store=store, on_progress=events.append, limits=QUICK, space=space(what), lock=tmp_path / "lock"
    )
    assert first.state in ("tuned", "kept") and first.exit_status == 0 and first.winner is not None and first.schedule is not None
    assert first.trials == 3 and first.reused == 0 and not first.failures
    assert first.ranking.floor > 0 and any("noise floor" in note for note in first.notes)
    assert events[0].best_seconds is None and events[-1].best_seconds and (events[-1].share or 0) > 0
    assert [e.trials for e in events] == sorted(e.trials for e in events)
    kept = store.trials(first.key)
    assert {t.candidate for t in kept} >= {first.winner, first.incumbent} and all(t.outcome == "ok" for t in kept)
    assert all(t.pairing is not None and t.pairing.incumbent == first.incumbent for t in kept if t.candidate != first.incumbent)
    assert ("bench lock", "held") in kept[0].operating
    served = Store(tmp_path / "personality").winner(first.key)
    assert served is not None and served.candidate == first.winner and served.servable

    again = tune(what, budget_seconds=30, seed=3, store=Store(tmp_path / "personality"), limits=QUICK, space=space(what), lock=tmp_path / "lock")
    assert again.reused == 3, "what is known was measured again"


def test_bad_candidates_do_not_end_a_session(tmp_path: Path) -> None:
    """A space whose other answers crash, hang and are wrong."""
    what = Request(op=op(SAXPY), device=cpu(), sizes={"N": 64}, threads=1)
    good = automatic_space(what.op, what.device.spec, what.sizes)
    names = ("none", "segfault", "hang", "wrong", "bug")

    def steps(given: object) -> Schedule:
        mistake = dict(given)["mistake"]  # type: ignore[call-overload]  # a space's answers are a mapping
        return good.schedule(good.default()) if mistake == "none" else planted(mistake)

    bad = Space(name="planted", ask=lambda given: (Asked(name="mistake", values=names),), allows=lambda given: True, steps=steps)
    limits = Limits(turn_seconds=0.0005, run_seconds=0.5)
    result = tune(what, budget_seconds=30, strategy="random", limits=limits, space=bad, make=make, lock=tmp_path / "lock")
    assert result.state == "kept" and result.winner == result.incumbent
    assert dict(result.failures) == {"crash": 1, "timeout": 1, "wrong_result": 1, "compile_error": 1}
    assert "SIGSEGV" in result.reasons["mistake=segfault"] and {q.outcome for q in result.ranking.quarantined} == set(result.failures)


def broken(job: Job) -> Prepared:
    raise RuntimeError("nothing compiles today")


def test_nothing_measured_is_a_state_of_its_own(tmp_path: Path) -> None:
    what = request()
    result = tune(what, budget_seconds=5, limits=QUICK, space=space(what), make=broken, lock=tmp_path / "lock")
    assert result.state == "nothing measured" and result.exit_status == 3 and result.winner is None
    assert "nothing compiles today" in next(iter(result.reasons.values()))


def test_interrupted_sessions_keep_what_they_have(tmp_path: Path) -> None:
    what = request()
    evidence = Memory()

    def interrupt(event: Progress) -> None:
        if event.doing == "searching":
            raise KeyboardInterrupt

    result = tune(
        what, budget_seconds=30, store=evidence, on_progress=interrupt, limits=QUICK, space=space(what), lock=tmp_path / "lock"
    )
    assert result.state == "interrupted" and result.exit_status == 0
    assert len(evidence.trials(result.key)) > 1


def test_text_schedules_are_searched(tmp_path: Path) -> None:
    bound = module(TEXT)
    what = Request(op=op(TEXT), device=cpu(), sizes={"M": 16, "N": 64}, blocks=bound.schedules["f"], threads=1)
    result = tune(what, budget_seconds=4, strategy="random", limits=QUICK, lock=tmp_path / "lock")
    assert result.state in ("tuned", "kept")
    assert result.incumbent.values == {"rows": 2, "width": 8}
    assert all(set(s.candidate.values) == {"rows", "width"} for s in result.ranking.standings)


@pytest.mark.parametrize(("text", "code"), [
    (TEXT.replace("<= 128", "<= 1"), "E0433"),
    (TEXT.replace("pow2(8, 64)", "pow2(64, 8)"), "E0432"),
    (TEXT.replace("rows * width", "rows * widht"), "E0431"),
])  # fmt: skip
def test_spaces_without_points_are_refused_at_the_line(text: str, code: str, tmp_path: Path) -> None:
    blocks: Sequence = module(text).schedules["f"]
    with pytest.raises(TriError) as caught:
        tune(Request(op=op(text), device=cpu(), sizes={"M": 16, "N": 64}, blocks=blocks), budget_seconds=1, lock=tmp_path / "lock")
    assert caught.value.code == code and caught.value.diagnostics[0].span is not None


def test_unknown_strategies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TriError, match="E0955"):
        tune(request(), strategy="luck", budget_seconds=5, limits=QUICK, lock=tmp_path / "lock")


def test_what_was_best_under_other_software_is_tried_first(tmp_path: Path) -> None:
    what = request()
    before, now = Memory(), Memory()
    first = tune(what, budget_seconds=20, store=before, limits=QUICK, space=space(what), lock=tmp_path / "lock")
    old = msgspec.structs.replace(first.key, fingerprint=msgspec.structs.replace(first.key.fingerprint, software="0" * 16))
    for trial in before.trials(first.key):
        now.add(msgspec.structs.replace(trial, key=old))
    doing: list[str] = []
    again = tune(
        what, budget_seconds=2, store=now, limits=QUICK, space=space(what), lock=tmp_path / "lock", on_progress=lambda e: doing.append(e.doing)
    )
    assert doing.index("verifying what was best before") < doing.index("ranking by predicted time")
    best = next(s.candidate for s in first.ranking.standings if s.candidate.steps != first.incumbent.steps)
    assert best in {t.candidate for t in now.trials(again.key) if t.key == again.key}


ENDLESS = """
import sys
from pathlib import Path
from tests.autotune.test_tune import QUICK, request
from tridsl.autotune.tune import tune
from tridsl.personality.store import Store
folder = Path(sys.argv[1])
tune(request(), budget_seconds=300, strategy="random", store=Store(folder / "personality"), limits=QUICK, lock=folder / "lock",
     on_progress=lambda event: print(event.trials, flush=True))
"""


def test_kill_9_loses_one_trial_at_most(tmp_path: Path) -> None:
    """The session is killed after it has said how many trials it has; they are all there."""
    said = 0
    with subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT) as session:
        assert session.stdout is not None
        for line in session.stdout:
            said = int(line)
            if said >= 3:
                session.kill()
                break
    what = request()
    result = tune(what, budget_seconds=1, store=Store(tmp_path / "personality"), limits=QUICK, lock=tmp_path / "lock")
    kept = Store(tmp_path / "personality").trials(result.key)
    assert len({t.candidate for t in kept} - {result.incumbent}) >= said
