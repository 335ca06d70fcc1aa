"""Rows of the table that are no op at sizes: the smallest call, starting, compiling, two threads over one, awkward operands."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tridsl import environment
from tridsl.api.ops import OpObject
from tridsl.cli.bench import arrays, peers, rows
from tridsl.cli.bench.cases import Case
from tridsl.cli.bench.contest import agreement, caller, our_call, prepare, reference
from tridsl.cli.bench.goals import GOALS, UNITS, judge
from tridsl.cli.bench.measure import US, beside, compile_times, peak_data, probes_of
from tridsl.cli.bench.peaks import rates
from tridsl.cli.bench.sampling import Call, Reading, interleave, reading
from tridsl.cli.bench.session import Session
from tridsl.cli.targets import services_for

CALLS = 1000
"""Small calls in one sample."""
ALONE = ", one thread"
PROCESSES, QUICK_PROCESSES = 15, 3


def _judged(name: str, readings: Mapping[str, Reading], value: Callable[[Reading], float], **more: Any) -> dict[str, Any]:
    """A row with a goal; `value` makes the figure of a reading."""
    goal = GOALS[name]
    values = {n: value(r) for n, r in readings.items()}
    others = {n: v for n, v in values.items() if n != US}
    contestants = {n: r.data() | {"value": values[n]} for n, r in readings.items()}
    found = {"name": name, "operation": name, "case": "", "regime": "hot", "readings": {"hot": {"contestants": contestants, "peaks": {}}}}
    return found | {"goal": asdict(goal), "value": values[US]} | judge(goal, values[US], others).data() | more


def _seconds_in(name: str) -> Callable[[Reading], float]:
    return lambda r: r.median / UNITS[GOALS[name].unit]


def small_call(session: Session) -> dict[str, Any]:
    """z = x + y on 16 elements with out=: what a call costs."""
    case = Case(operation="bench:add", sizes={"N": 16})
    services = services_for(session.settings)
    ready = prepare(case, services)
    op: OpObject = ready.target.op_object(services)
    x, y, z = ready.arguments["x"], ready.arguments["y"], ready.outs[0]
    op(x, y, out=z)
    right = bool(np.array_equal(z, x + y))
    ours, plus = op, np.add

    def repeated(call: Callable[[], object]) -> Call:
        def sample(number: int) -> None:
            for _ in range(CALLS):
                call()

        return sample

    def us(number: int) -> None:
        for _ in range(CALLS):
            ours(x, y, out=z)

    def numpy(number: int) -> None:
        for _ in range(CALLS):
            plus(x, y, out=z)

    calls: dict[str, Call] = {US: us, "numpy": numpy}
    here, missing = peers.installed(), []
    for name, library, peer in peers.peers_of("add"):
        if library == "numpy" or not session.options.peers:
            continue
        call = peer({"x": x, "y": y}, (z,)) if here[library] else None
        if call is None:
            missing.append(name)
        else:
            calls[name] = repeated(call)
    taken = {n: r.over(CALLS) for n, r in interleave(calls, session.samples).items()}
    name = "call on three arrays of 16"
    return _judged(name, taken, _seconds_in(name), correct=right, error=0.0, missing=missing)


_FIRST = """
import time, numpy as np
x = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
{load}
start = time.perf_counter()
{call}
print(time.perf_counter() - start)
"""
_FIRST_CALLS: dict[str, tuple[str, str]] = {
    US: ("import tridsl", "tridsl.stdlib.softmax(x)"),
    "jax": ("import jax, jax.numpy as jnp\nf = jax.jit(lambda x: jnp.exp(x - x.max(-1, keepdims=True)) / jnp.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))", "f(x).block_until_ready()"),
    "numba": ("import numba\nfrom tridsl.cli.bench.peers.numba import softmax\nf, y = numba.njit(softmax, fastmath=True), np.empty_like(x)", "f(x, y)"),
}  # fmt: skip
"""How a first softmax is made ready, and called."""


def _process(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # an installed package has its bytecode on disk
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=kept | variables)


def _processes(session: Session) -> int:
    return QUICK_PROCESSES if session.options.quick else PROCESSES


def importing(session: Session) -> dict[str, Any]:
    """The whole process less an empty one, in turns."""

    def wall(code: str) -> float:
        start = perf_counter()
        _process(code)
        return perf_counter() - start

    names = {US: "tridsl", "numpy": "numpy", "numba": "numba", "jax": "jax"}
    here = {US: True} | peers.installed()
    names = {name: module for name, module in names.items() if here[name]}
    taken: dict[str, list[float]] = {name: [] for name in names}
    for module in names.values():
        wall(f"import {module}")  # byte code is written, files are in the page cache
    for _ in range(_processes(session)):
        empty = wall("pass")
        for name, module in names.items():
            taken[name].append(wall(f"import {module}") - empty)
    name = "import tridsl"
    missing = [n for n in ("numba", "jax") if not here[n]]
    return _judged(name, {n: reading(times) for n, times in taken.items()}, _seconds_in(name), missing=missing)


def first_softmax(session: Session, *, warm: bool) -> dict[str, Any]:
    """The first call of a process, imports not counted."""
    here = {US: True} | peers.installed()
    names = [n for n in _FIRST_CALLS if here[n] and not (warm and n != US)]  # who has no cache on the disk has no warm one
    taken: dict[str, list[float]] = {n: [] for n in names}
    with tempfile.TemporaryDirectory(prefix="tridsl-bench-") as folder:
        for number in range(_processes(session)):
            for n in names:
                load, call = _FIRST_CALLS[n]
                code = _FIRST.format(load=load, call=call)
                cache = str(Path(folder) / str(number))
                place = {environment.CACHE: cache, "XDG_CACHE_HOME": cache, environment.PERSONALITY: str(Path(folder) / "personality")}
                for again in range(2 if warm else 1):
                    seconds = float(_process(code, **place).stdout)
                    if again or not warm:
                        taken[n].append(seconds)
    name = f"first softmax, {'warm' if warm else 'empty'} cache"
    return _judged(name, {n: reading(times) for n, times in taken.items()}, _seconds_in(name), missing=[n for n in _FIRST_CALLS if not here[n]])


def compiling(session: Session, *, warm: bool) -> dict[str, Any]:
    """A product's first call less its run, in a process that has compiled before."""
    ready = prepare(rows.matmul(1024, 1024, 1024), services_for(session.settings))
    our_call(ready, services_for(session.settings), session.options.device, session.options.threads)()
    found = [compile_times(ready, session, dispatch=False) for _ in range(_processes(session))]
    times = [max(0.0, one["warm_seconds" if warm else "cold_seconds"] - one["run_seconds"]) for one in found]
    name = f"compile f32 matmul 1024, {'warm' if warm else 'empty'} cache"
    middle = sorted(found, key=lambda one: one["cold_seconds"])[len(found) // 2]
    return _judged(name, {US: reading(times)}, _seconds_in(name), compile=middle)


def scaling(session: Session, *, name: str, case: Case) -> dict[str, Any]:
    """Time on one core over time on two, us and PyTorch, in turns."""
    everything = session.everything
    if len(everything) < 2:
        return {"name": name, "operation": name, "case": "", "error": "needs two cores; this process may use one"}
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, everything[-2:])
    try:
        services = services_for(session.settings)
        ready = prepare(case, services)
        exact = reference(ready)
        one, two = (our_call(ready, services, session.options.device, threads) for threads in (1, 2))
        answers = [agreement(ready, call(), exact) for call in (one, two)]
        wrong = next((a.reason for a in answers if not a.right), "")
        calls: dict[str, Call] = {US: lambda number: two(), f"{US}{ALONE}": lambda number: one()}
        here = peers.installed()["torch"] and session.options.peers
        if here:
            torch: Any = importlib.import_module("torch")  # a peer, where it is installed
            call = peers.LIBRARIES["torch"][ready.op.name](ready.plain, ready.outs)
            assert call is not None, "PyTorch has these ops"

            def theirs(threads: int) -> Call:
                def sample(number: int) -> None:
                    torch.set_num_threads(threads)
                    call()

                return sample

            calls |= {"torch": theirs(2), f"torch{ALONE}": theirs(1)}
        taken = interleave(calls, session.samples)
    finally:
        os.sched_setaffinity(0, before)
        peers.set_threads(session.options.threads)
    goal = GOALS[name]
    values = {who: taken[f"{who}{ALONE}"].median / taken[who].median for who in (US, "torch") if who in taken}
    contestants = {n: r.data() | ({"value": values[n]} if n in values else {}) for n, r in taken.items()}
    found = {"name": name, "operation": case.operation, "case": case.title, "regime": "hot", "correct": not wrong, "error": wrong or max(a.worst for a in answers)}
    if wrong:
        return found
    verdict = judge(goal, values[US], {n: v for n, v in values.items() if n != US}).data()
    found |= {"readings": {"hot": {"contestants": contestants, "peaks": {}}}, "goal": asdict(goal), "value": values[US]}
    return found | verdict | {"missing": [] if here else ["torch"]}


def operands(session: Session, *, name: str, case: Case, tensor: str) -> dict[str, Any]:
    """What it costs us that an argument begins off its line, or that its rows stand apart, over the same call on plain arrays."""
    services = services_for(session.settings)
    ready = prepare(case, services)
    exact = reference(ready)
    value = ready.arguments[tensor]
    apart = arrays.aligned((*value.shape[:-1], value.shape[-1] + 16), value.dtype)[..., : value.shape[-1]]
    turned = arrays.aligned(value.shape[::-1], value.dtype).T
    given: dict[str, Any] = {"row-major": value, "4 bytes off a line": arrays.rehomed(value, skew=value.itemsize), "rows apart": apart, "column-major": turned}
    for other in (apart, turned):
        other[...] = value
    call = caller(ready, services, session.options.device, session.options.threads)
    calls: dict[str, Call] = {}
    wrong, worst = "", 0.0
    for how, array in given.items():
        arguments = {**ready.arguments, tensor: array}
        answer = agreement(ready, call(arguments, ready.outs), exact)
        wrong, worst = wrong or answer.reason, max(worst, answer.worst)
        calls[how] = lambda number, arguments=arguments: call(arguments, ready.outs)  # type: ignore[misc]
    found = {"name": name, "operation": case.operation, "case": f"{case.title}; {tensor}", "regime": "hot", "correct": not wrong, "error": wrong or worst}
    if wrong:
        return found
    probes = probes_of(None, ready, session, "hot")
    taken = interleave(beside(calls, probes), session.samples)
    plain = taken["row-major"].median
    contestants = {n: taken[n].data() | {"value": taken[n].median / plain} for n in calls}
    return found | {"readings": {"hot": {"contestants": contestants, "peaks": peak_data(probes, rates(probes, taken))}}, "unit": "x row-major"}


Job = Callable[[Session], dict[str, Any]]


def _softmax(side: int) -> Case:
    return Case(operation="stdlib:softmax", shapes={"x": (side, side)})


def _rmsnorm(side: int) -> Case:
    return Case(operation="stdlib:rmsnorm", shapes={"x": (side, side)})


def _named(*pairs: tuple[str, Callable[..., dict[str, Any]], Mapping[str, Any]]) -> dict[str, Job]:
    return {name: partial(function, **arguments) for name, function, arguments in pairs}


EXTRAS: dict[str, Job] = _named(
    ("call on three arrays of 16", small_call, {}),
    ("import tridsl", importing, {}),
    ("first softmax, empty cache", first_softmax, {"warm": False}),
    ("first softmax, warm cache", first_softmax, {"warm": True}),
    ("compile f32 matmul 1024, empty cache", compiling, {"warm": False}),
    ("compile f32 matmul 1024, warm cache", compiling, {"warm": True}),
    *(
        (name, operands, {"name": name, "case": case, "tensor": tensor})
        for name, case, tensor in (
            ("operands: softmax 1024x1024, x", _softmax(1024), "x"),
            ("operands: rmsnorm 1024x1024, x", _rmsnorm(1024), "x"),
            ("operands: f32 matmul 512, A", rows.matmul(512, 512, 512), "A"),
            ("operands: f32 matmul 512, B", rows.matmul(512, 512, 512), "B"),
            ("operands: exp(-x^2)a + tanh(bx) 10^4, x", Case(operation="bench:waves", sizes={"N": 10_000}, scalars={"a": 1.5, "b": 0.5}), "x"),
        )
    ),
    *(
        (name, scaling, {"name": name, "case": case})
        for name, case in (
            ("two threads over one, matmul 1024", rows.matmul(1024, 1024, 1024)),
            ("two threads over one, rmsnorm 4096x4096", _rmsnorm(4096)),
        )
    ),
)
"""By name: the rest of the table, then what awkward operands cost; two threads last, since they change where the process runs."""
