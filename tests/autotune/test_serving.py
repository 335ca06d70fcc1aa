"""Calls get what the evidence says, at once; what cannot be used is left out and said; searches run behind the caller's back."""

from __future__ import annotations

import gc
import warnings
import weakref
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.personality.makers import failed, ok
from tridsl import stdlib
from tridsl.api.compilation import lower
from tridsl.api.decorator import jit
from tridsl.api.engine import Services
from tridsl.api.library import compile_text
from tridsl.api.ops import Namespace, OpObject
from tridsl.api.store import DiskStore
from tridsl.autotune.serving import PersonalityWarning, Serving
from tridsl.backend import load_backend
from tridsl.personality.candidate import Candidate, candidate
from tridsl.personality.evidence import Key, meaning
from tridsl.personality.keys import here, key_of
from tridsl.program.realise import Realiser
from tridsl.runtime.artifacts import Artifacts
from tridsl.schedule.steps import Split, Vector

TEXT = "op twice(x: f32[N]) -> y: f32[N] {\n  y[i] = 2 * x[i]\n}\nop more(x: f32[N]) -> y: f32[N] {\n  y[i] = x[i] + 1\n}\n"
SPLIT = candidate((Split(stage="y", axis="i", factor=24),))
BROKEN = candidate((Vector(stage="y", axis="nowhere"),))
x = np.arange(48, dtype=np.float32)


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    return Serving(tmp_path / "personality", budget_seconds=1.0)


@pytest.fixture
def services(serving: Serving, tmp_path: Path) -> Services:
    return Services(realiser=Realiser(store=DiskStore(Artifacts(tmp_path / "cache"))), tuner=serving)


@pytest.fixture
def ops(services: Services) -> Namespace:
    return compile_text(TEXT, stdlib.source, services)


def key(op: OpObject, size: int = 48, threads: int = 1) -> Key:
    """As a tuner makes it."""
    from tridsl.check.overloads import select
    from tridsl.check.types import check_op
    from tridsl.dtypes import F32

    module = op._engine.module
    overload, types = select(module.bound, op.__name__, (), (), {}, keywords={"x": (F32, 1)})
    whole = check_op(module.bound, overload, types)
    return key_of(whole, meaning(whole), {"N": size}, load_backend("cpu").driver().devices()[0], threads)


def schedule(op: OpObject) -> str:
    return lower(op._engine, (x,), {}, "schedule", None)


def test_the_winner_is_served(ops: Namespace, serving: Serving) -> None:
    assert "24" not in schedule(ops.twice)
    serving.store.add(ok(SPLIT, [1e-6] * 5, where=key(ops.twice)))
    assert "24" in schedule(ops.twice) and "24" not in schedule(ops.more)
    assert np.array_equal(ops.twice(x), 2 * x)
    serving.store.add(failed(SPLIT, "crash", where=key(ops.twice)))
    assert "24" not in schedule(ops.twice), "a candidate in quarantine is served"


def test_only_the_shape_that_was_measured_is_served(ops: Namespace, serving: Serving) -> None:
    serving.store.add(ok(SPLIT, [1e-6] * 5, where=key(ops.twice, size=96)))
    assert "24" not in schedule(ops.twice)


def test_what_was_measured_elsewhere_is_not_run_unseen(ops: Namespace, serving: Serving) -> None:
    serving.store.add(ok(SPLIT, [1e-6] * 5, where=key(ops.twice), origin="friend"))
    assert "24" not in schedule(ops.twice)


def test_what_other_software_found_is_served_and_one_sentence_says_so(ops: Namespace, serving: Serving) -> None:
    place = here(load_backend("cpu").driver().devices()[0], 1)
    old = msgspec.structs.replace(place, software=tuple((n, "an older one" if n == "generator" else v) for n, v in place.software))
    serving.store.know(old)
    serving.store.know(place)
    for op in (ops.twice, ops.more):
        serving.store.add(ok(SPLIT, [1e-6] * 5, where=msgspec.structs.replace(key(op), fingerprint=old.hashes)))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert all("24" in schedule(op) for op in (ops.twice, ops.more, ops.twice))
    (one,) = [str(w.message) for w in found]
    assert "generator an older one→" in one and "twice N=48" in one and "used as it was" in one


def test_a_winner_that_does_not_compile_is_replaced_by_the_default(ops: Namespace, serving: Serving) -> None:
    serving.store.add(ok(BROKEN, [1e-6] * 5, where=key(ops.twice)))
    with pytest.warns(PersonalityWarning, match="does not compile here"):
        assert np.array_equal(ops.twice(x), 2 * x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(ops.twice(x), 2 * x) and np.array_equal(ops.twice(x, threads=1), 2 * x)


def test_programs_are_served_too(ops: Namespace, services: Services, serving: Serving) -> None:
    serving.store.add(ok(SPLIT, [1e-6] * 5, where=key(ops.twice)), ok(BROKEN, [1e-6] * 5, where=key(ops.more)))
    alone = jit(lambda a: ops.twice(a), lambda text: ops, services, "cpu", None)
    assert np.array_equal(alone(x), 2 * x)
    other = jit(lambda a: ops.more(a), lambda text: ops, services, "cpu", None)
    with pytest.warns(PersonalityWarning, match="does not compile here"):
        assert np.array_equal(other(x), x + 1)


def best(serving: Serving) -> set[Candidate]:
    return {won.candidate for k in serving.store.subjects() if (won := serving.store.winner(k)) is not None}


def test_tune_is_asked_for_in_a_call_and_found_behind_its_back(ops: Namespace, serving: Serving) -> None:
    first = ops.twice(x, tune=True)
    assert np.array_equal(first, 2 * x)
    assert serving.wait(60)
    (subject,) = serving.store.subjects()
    assert subject.text == key(ops.twice).text and subject == key(ops.twice)
    assert serving.store.winner(subject) is not None
    for _ in range(4):
        assert np.array_equal(ops.twice(x, tune=True), 2 * x)
    assert serving.wait(60) and len(serving.store.subjects()) == 1, "the same was tuned twice"


def test_a_better_kernel_replaces_the_one_in_use(ops: Namespace, serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where calls go to the native dispatcher already."""

    def search(asked: object, arguments: object) -> object:
        serving.store.add(ok(SPLIT, [1e-6] * 5, where=key(ops.twice)))
        return msgspec.defstruct("Found", [("state", str)])("tuned")

    monkeypatch.setattr(serving, "_search", search)
    for _ in range(5):
        ops.twice(x, tune=True)
    assert serving.wait(60)
    (ready,) = ops.twice._engine._ready.values()
    (served,) = best(serving)
    assert served == SPLIT and "24" in schedule(ops.twice)
    assert ready.loaded is not None and np.array_equal(ops.twice(x, tune=True), 2 * x)


def test_joined_calls_have_evidence_of_their_own(ops: Namespace, services: Services, serving: Serving) -> None:
    both = jit(lambda a: ops.more(ops.twice(a)), lambda text: ops, services, "cpu", None, True)
    assert np.array_equal(both(x), 2 * x + 1)
    assert serving.wait(60)
    (subject,) = serving.store.subjects()
    assert subject.op == "twice_more" and serving.store.winner(subject) is not None
    assert np.array_equal(both(x), 2 * x + 1)


def test_a_search_that_fails_says_so(ops: Namespace, serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    def search(asked: object, arguments: object) -> object:
        raise OSError("no room")

    monkeypatch.setattr(serving, "_search", search)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        ops.twice(x, tune=True)
        assert serving.wait(60)
    assert any("could not be tuned: OSError: no room" in str(w.message) for w in found)


def test_a_remembered_kernel_keeps_nobodys_arrays(ops: Namespace) -> None:
    given = np.ones(64, np.float32)
    kept = weakref.ref(given)
    ops.twice(given)
    del given
    gc.collect()
    assert kept() is None
