"""`tridsl check --prove-monoids`: are a user's monoids associative, and are their identities neutral? A property test.

States are drawn by lifting random arguments and merging a few of them, so that only states that can occur are tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tridsl.check import monoids
from tridsl.check.signature import type_choices
from tridsl.check.types import MOST_COMBINATIONS
from tridsl.diagnostics import Diagnostic
from tridsl.dtypes import NUMPY_TYPES, DType
from tridsl.ir.evaluate_op import evaluate_op
from tridsl.ir.expr import Expr, Load, Var, index
from tridsl.ir.op import Axis, Map, Op, Tensor
from tridsl.ir.walk import substitute
from tridsl.syntax.nodes import Monoid

SAMPLES = 4096
SPECIAL = (0.0, 1.0, -1.0, 0.5, 1e-30, -1e30)
"""Floats that random ones are mixed with."""

States = tuple[NDArray[Any], ...]


def broken_laws(monoid: Monoid, seed: int = 0) -> Iterator[Diagnostic]:
    """A diagnostic E0812 with a counterexample for each law that fails for some choice of types."""
    for types in islice(type_choices(monoid), MOST_COMBINATIONS):
        form = monoids.form(monoid, types)
        tester = _Tester(form, np.random.default_rng(seed))
        found = tester.counterexample()
        if found is not None:
            law, text = found
            chosen = ", ".join(f"{n} = {t}" for n, t in types.items())
            yield Diagnostic(
                code="E0812", message=f"the monoid '{monoid.name}'{f' ({chosen})' if chosen else ''} {law}", span=monoid.span,
                label="here", notes=tuple(text), help="splitting a reduction among threads or lanes would change its result; correct `merge` or the identities",
            )  # fmt: skip
            return


class _Tester:
    """The laws of one monoid on random states."""

    def __init__(self, form: monoids.MonoidForm, random: np.random.Generator) -> None:
        self.form = form
        reducer = form.reducer
        self.names, self.dtypes = reducer.states, reducer.dtypes
        self.identity: States = tuple(np.full(SAMPLES, c.value, NUMPY_TYPES[c.dtype]) for c in reducer.identity)
        self.random = random

    def counterexample(self) -> tuple[str, list[str]] | None:
        a, b, c = (self._states() for _ in range(3))
        laws = (
            ("is not associative", self._merge(self._merge(a, b), c), self._merge(a, self._merge(b, c)), (a, b, c), "merge(merge(a, b), c)", "merge(a, merge(b, c))"),
            ("has an identity that is not neutral on the left", self._merge(self.identity, a), a, (a,), "merge(identity, a)", "a"),
            ("has an identity that is not neutral on the right", self._merge(a, self.identity), a, (a,), "merge(a, identity)", "a"),
        )
        for law, left, right, states, left_text, right_text in laws:
            bad = self._differ(left, right)
            if bad is not None:
                lines = [f"{name} = {self._show(state, bad)}" for name, state in zip("abc", states)]
                return law, [*lines, f"{left_text} = {self._show(left, bad)}", f"{right_text} = {self._show(right, bad)}"]
        return None

    def _states(self) -> States:
        """Up to three lifted arguments, merged."""
        state = self._lift()
        for _ in range(2):
            more = self._merge(state, self._lift())
            take = self.random.random(SAMPLES) < 0.5
            state = tuple(np.where(take, m, s) for m, s in zip(more, state))
        return state

    def _lift(self) -> States:
        arguments = {name: self._values(dtype) for name, dtype in self.form.parameters}
        return self._run(self.form.lift, arguments, dict(self.form.parameters))

    def _merge(self, a: States, b: States) -> States:
        values = {f"{side}.{name}": array for side, states in (("a", a), ("b", b)) for name, array in zip(self.names, states)}
        types = {f"{side}.{name}": dtype for side in "ab" for name, dtype in zip(self.names, self.dtypes)}
        return self._run(self.form.reducer.merge, values, types)

    def _run(self, expressions: tuple[Expr, ...], values: Mapping[str, NDArray[Any]], types: Mapping[str, DType]) -> States:
        """The expressions at every sample, by the oracle: one map per state over one axis of samples."""
        axis = Axis(name="sample", lo=index(0), hi=index(SAMPLES))
        point = (Var(name="sample"),)
        loads: dict[str, Expr] = {name: Load(tensor=name, index=point, dtype=dtype) for name, dtype in types.items()}
        inputs = tuple(Tensor(name=name, dtype=dtype, shape=(index(SAMPLES),)) for name, dtype in types.items())
        outputs = tuple(Tensor(name=f"to.{n}", dtype=d, shape=(index(SAMPLES),), role="output") for n, d in zip(self.names, self.dtypes))
        stages = tuple(Map(name=f"to.{n}", dtype=d, axes=(axis,), value=substitute(e, loads)) for n, d, e in zip(self.names, self.dtypes, expressions))
        op = Op(name="law", types=(), params=(*inputs, *outputs), sizes=(), stages=stages)
        found = evaluate_op(op, dict(values), {})
        return tuple(found[f"to.{name}"] for name in self.names)

    def _values(self, dtype: DType) -> NDArray[Any]:
        if dtype.is_float:
            drawn = self.random.standard_normal(SAMPLES) * 10.0 ** self.random.integers(-2, 3, SAMPLES)
            special = self.random.random(SAMPLES) < 0.1
            with np.errstate(over="ignore"):
                return np.where(special, self.random.choice(SPECIAL, SAMPLES), drawn).astype(NUMPY_TYPES[dtype])
        low, high = max(dtype.low or 0, -100), min(1 if dtype.high is None else dtype.high, 100)
        return self.random.integers(low, high, SAMPLES, endpoint=True).astype(NUMPY_TYPES[dtype])

    def _differ(self, left: States, right: States) -> int | None:
        """The first sample at which a state differs by more than rounding."""
        bad = np.zeros(SAMPLES, bool)
        for a, b, dtype in zip(left, right, self.dtypes):
            if dtype.is_float:
                tolerance = 1e-9 if dtype.bits == 64 else 1e-3
                x, y = a.astype(np.float64), b.astype(np.float64)
                with np.errstate(all="ignore"):
                    bad |= ~(np.isclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True) | (np.isinf(x) & np.isinf(y) & (x == y)))
            else:
                bad |= a != b
        return int(np.argmax(bad)) if bad.any() else None

    def _show(self, states: States, sample: int) -> str:
        return "(" + ", ".join(f"{n} = {s[sample].item():.6g}" for n, s in zip(self.names, states)) + ")"


