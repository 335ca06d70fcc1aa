"""Rows of the GPU's table that are no op at sizes: ten small launches replayed, beside a CUDA graph of the same work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from tridsl import stdlib
from tridsl.api.decorator import JitFunction
from tridsl.cli.bench.goals import GPU_GOALS, judge
from tridsl.cli.bench.measure import US
from tridsl.cli.bench.on_device import REGIME, keeper
from tridsl.cli.bench.peers import cuda
from tridsl.cli.bench.sampling import Call, interleave
from tridsl.cli.bench.session import Session
from tridsl.cli.targets import services_for

ROWS, WIDTH, LAYERS = 64, 256, 5
TOLERANCE = 1e-4
REPLAYED = "ten launches replayed"


def _program(x: Any, *weights: Any) -> Any:
    for weight in weights:
        x = stdlib.softmax(stdlib.matmul(x, weight))
    return x


def _exact(arrays: list[Any]) -> Any:
    x, *weights = (a.astype(np.float64) for a in arrays)
    for weight in weights:
        e = np.exp((y := x @ weight) - y.max(-1, keepdims=True))
        x = e / e.sum(-1, keepdims=True)
    return x


def replayed(session: Session) -> dict[str, Any]:
    """Five products and five softmaxes of 64 rows as one submit, arrays on the device: wall time of a replay with its wait, in turns
    with that of the graph."""
    random = np.random.default_rng(0)
    arrays = [random.standard_normal((ROWS, WIDTH)).astype(np.float32)]
    arrays += [random.standard_normal((WIDTH, WIDTH)).astype(np.float32) for _ in range(LAYERS)]
    traced = JitFunction(_program, services_for(session.settings), session.device.name, None, tune=False)
    exact, result = _exact(arrays), traced(*arrays)
    wrong = float(np.abs(result - exact).max())
    found: dict[str, Any] = {"name": REPLAYED, "operation": REPLAYED, "case": "", "regime": REGIME, "correct": wrong <= TOLERANCE, "error": wrong, "missing": []}
    if wrong > TOLERANCE:
        return found
    (step,) = traced.compiled(*arrays).program.steps
    driver = keeper(session.device)
    executable: Any = step.executable
    inputs = iter(arrays)
    outer = [held for held in executable.arrays if held.offset is None]
    slots = [driver.keep(next(inputs) if held.upload else np.zeros(held.bytes, np.uint8), session.device) for held in outer]
    try:
        calls: dict[str, Call] = {US: lambda number: executable(slots)}
        torch = cuda.pytorch() if session.options.peers else None
        if torch is None:
            found["missing"].append(cuda.NAME)
        else:
            replay, theirs = cuda.graph_of(torch, lambda tensors: _of_torch(torch, tensors), {str(n): a for n, a in enumerate(arrays)})
            replay()
            found["peers"] = {cuda.NAME: float(np.abs(cuda.array_of(theirs) - exact).max())}
            calls[cuda.NAME] = lambda number: replay()
        readings = interleave(calls, session.samples)
        again = np.empty_like(result)
        driver.fetch(slots[next(n for n, held in enumerate(outer) if held.download)], again, session.device)
        found["correct"] = bool(np.array_equal(again, result))
    finally:
        for kept in slots:
            driver.drop(kept, session.device)
    contestants: dict[str, Any] = {name: dict(one.data()) for name, one in readings.items()}
    goal = GPU_GOALS[REPLAYED]
    found |= {"goal": asdict(goal), "value": None, "verdict": f"no {cuda.NAME} here", "readings": {REGIME: {"contestants": contestants, "peaks": {}, "rotated_bytes": 0}}}
    if cuda.NAME in readings:
        for name, one in readings.items():
            contestants[name]["value"] = readings[cuda.NAME].median / one.median
        found |= {"value": contestants[US]["value"]} | judge(goal, contestants[US]["value"], {cuda.NAME: 1.0}).data()
    return found


def _of_torch(torch: Any, tensors: Mapping[str, Any]) -> Any:
    y, *weights = tensors.values()
    for weight in weights:
        y = torch.softmax(y @ weight, -1)
    return y


EXTRAS_GPU: dict[str, Callable[[Session], dict[str, Any]]] = {REPLAYED: replayed}
"""By name."""
