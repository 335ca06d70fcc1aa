"""Kernel Tuner's strategies (PyPI `kernel-tuner`, extra `bench`) on our recordings, under the same budget of distinct points.

They get what they are made for: a table of named parameters, the combinations that there are, and per configuration
the mean of seven samples (Kernel Tuner's default). A choice that is not asked for in a branch has its first value there.
"""

from __future__ import annotations

import contextlib
import io
import math
import random
import sys
import warnings
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import numpy as np

from tridsl.autotune.replay import Recording, Server, Trace
from tridsl.autotune.space import Point
from tridsl.diagnostics import error
from tridsl.schedule.values import Value

ITERATIONS = 7
STRATEGIES = (
    "random_sample", "genetic_algorithm", "greedy_ils", "greedy_mls", "mls", "ordered_greedy_mls", "pso", "simulated_annealing",
    "diff_evo", "firefly_algorithm", "basinhopping", "dual_annealing", "bayes_opt",
)  # fmt: skip


MOST_ASKED = 2000
"""Points that a strategy may ask for again in a row: some go round in circles for ever once they have seen their neighbourhood."""


class _Runner:
    """What Kernel Tuner's strategies call in place of a compiler and a GPU."""

    def __init__(self, library: Any, server: Server, names: list[str], points: dict[tuple[Value, ...], Point]) -> None:
        self.library, self.server, self.names, self.points = library, server, names, points
        self.seen: dict[tuple[Value, ...], dict[str, Any]] = {}
        self.best: tuple[float, Point] | None = None
        self.asked = 0
        self.dev = SimpleNamespace(max_threads=1_000_000_000, name="recorded")

    def add_strategy_time(self, seconds: float) -> None:
        pass

    def get_device_info(self) -> Any:
        return self

    def run(self, parameter_space: Any, tuning_options: Any) -> list[dict[str, Any] | None]:
        found: list[dict[str, Any] | None] = []
        for element in parameter_space:
            key = tuple(element)
            if key not in self.points:
                found.append(dict(zip(self.names, key)) | {"__error__": self.library.util.InvalidConfig()})
                continue
            self.asked += 1
            if self.asked > MOST_ASKED:
                raise self.library.util.StopCriterionReached("it goes round in circles")
            if key not in self.seen:
                self.asked = 0
                if tuning_options.budget.is_done() or self.server.spent:
                    found.append(None)
                    continue
                tuning_options.budget.add_evaluations(1)
                self.seen[key] = self._result(key)
            found.append(dict(self.seen[key]))
        return found

    def _result(self, key: tuple[Value, ...]) -> dict[str, Any]:
        result: dict[str, Any] = dict(zip(self.names, key))
        point = self.points[key]
        ratios, failure = self.server.serve(point, ITERATIONS)
        if failure:
            result["__error__"] = self.library.util.RuntimeFailedConfig()
        else:
            result["time"] = fmean(map(math.exp, ratios))
            if self.best is None or result["time"] < self.best[0]:
                self.best = result["time"], point
        self.server.note(self.best[1] if self.best else None)
        return result


def table(recording: Recording) -> tuple[dict[str, list[Value]], dict[tuple[Value, ...], Point]]:
    """Parameters with their values, and the recorded combinations with their points."""
    values: dict[str, dict[Value, None]] = {}
    everything = (*recording.ratios, *recording.failed)
    for point in everything:
        for name, value in point:
            values.setdefault(name, {})[value] = None
    parameters = {n: sorted(v, key=float) if all(type(x) in (int, float) for x in v) else list(v) for n, v in values.items()}  # type: ignore[arg-type]
    rows = {tuple(dict(p).get(n, parameters[n][0]) for n in parameters): p for p in everything}
    return parameters, rows


def play_peer(name: str, recording: Recording, *, budget: int, seed: int) -> Trace:
    """One of Kernel Tuner's strategies on a recording. E0954: Kernel Tuner is not installed."""
    try:
        import constraint  # an optional extra, and what it builds its spaces with
        import kernel_tuner
        from kernel_tuner import interface, searchspace, util
    except ImportError:
        raise error("E0954", "the comparison needs Kernel Tuner, which is not installed", help="pip install tridsl[bench]") from None
    library: Any = kernel_tuner
    library.util = util
    random.seed(seed)
    np.random.seed(seed)
    parameters, rows = table(recording)
    names = list(parameters)
    recorded = constraint.FunctionConstraint(lambda *row: row in rows)
    space: Any = searchspace.Searchspace(parameters, [recorded], 1_000_000_000)
    remember = space._Searchspace__add_to_neighbor_partial_cache
    space._Searchspace__add_to_neighbor_partial_cache = lambda config, found, *rest, **more: remember(config, list(found), *rest, **more)
    # (Kernel Tuner 1.5.0 keeps a NumPy array there and then appends to it; its local searches end in an AttributeError without this)
    server = Server(recording, budget, seed)
    runner = _Runner(library, server, names, rows)
    options: Any = interface.Options(
        objective=["time"], objective_higher_is_better=[False], verbose=False, quiet=True, metrics=None, cache={}, tune_params=parameters,
        restrictions=space._modified_restrictions, strategy_options=interface.Options(max_fevals=min(budget, space.size)),
        max_fevals=min(budget, space.size), budget=util.TuningBudget(None, min(budget, space.size)), seed=seed,
    )  # fmt: skip
    silent = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(silent), contextlib.suppress(util.StopCriterionReached):
        warnings.simplefilter("ignore")
        try:
            interface.strategy_map[name].tune(space, runner, options)
        except util.StopCriterionReached:
            raise
        except Exception as problem:  # noqa: BLE001 (what it found until it broke counts: its user would have that, too)
            print(f"{recording.name}, seed {seed}: Kernel Tuner's {name} ended with {type(problem).__name__}: {problem}", file=sys.stderr)
    return server.trace(not server.spent)
