"""The speeds this project promises, side by side with its peers, in one run on one pinned core: `python tests/bench/speed.py`.

Not part of `make test`: run it alone on an idle machine. Every row is measured in the same interleaving as its peers and the machine's
peaks, after its answer was checked in f64. `--json` prints a document; `--small` tries the script at small sizes (its verdicts mean
nothing then). Exit status 1 when a floor is missed, 70 when an answer is wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import tridsl
from tridsl.api.devices import find
from tridsl.cli.bench import cases, peaks, peers
from tridsl.cli.bench.contest import agreement, our_call, prepare, reference
from tridsl.cli.bench.sampling import Call, Reading, interleave, pin, reading, start_with_threads
from tridsl.cli.bench.table import seconds
from tridsl.cli.settings import Settings
from tridsl.cli.targets import services_for

CALLS = 1000
"""Small calls in one sample."""

BYTECODE = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Start-up is that of an installed package: its bytecode is on disk after the first process."""
PROCESSES = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a row must reach (`floor`) and aims at (`goal`), in `unit`; `more`: larger is better."""

    floor: float
    goal: float
    unit: str
    more: bool = False

    def verdict(self, value: float) -> str:
        reached = [name for name, bound in (("goal", self.goal), ("floor", self.floor)) if (value >= bound if self.more else value <= bound)]
        return reached[0] if reached else "missed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One promise. `readings` are seconds per call; `missing` are peers that are not installed here."""

    name: str
    goal: Goal
    value: float
    readings: Mapping[str, Reading] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    wrong: str = ""

    @property
    def verdict(self) -> str:
        return f"WRONG: {self.wrong}" if self.wrong else self.goal.verdict(self.value)

    @property
    def beside(self) -> str:
        """Each peer's time over ours: more than 1 is a win."""
        mine = self.readings.get("tridsl")
        others = {n: r for n, r in self.readings.items() if n not in ("tridsl", "fma", "copy")}
        return ", ".join(f"{n} {seconds(r.median)} ({r.median / mine.median:.2f}x)" for n, r in others.items()) if mine else ""

    def data(self) -> dict[str, Any]:
        return {
            "name": self.name, "value": self.value, "verdict": self.verdict, "missing": list(self.missing), "label": "measured",
            "goal": asdict(self.goal), "readings": {n: r.data() for n, r in self.readings.items()},
        }  # fmt: skip


def op_row(name: str, case: cases.Case, goal: Goal, value: Callable[[Reading, Mapping[str, float]], float], libraries: tuple[str, ...],
           samples: int, probes: tuple[peaks.Probe, ...]) -> Row:  # fmt: skip
    """An op with out= beside libraries on the same arrays. `value` makes the figure from our reading and the peaks' rates."""
    services = services_for(Settings())
    ready = prepare(case, services)
    exact = reference(ready)
    mine = our_call(ready, services, "cpu", 1)
    found = agreement(ready, mine(), exact)
    if not found.right:
        return Row(name=name, goal=goal, value=float("nan"), wrong=found.reason)
    here = peers.installed()
    calls: dict[str, Call] = {"tridsl": lambda number: mine()}
    for library in (name for name in libraries if here[name]):
        theirs = peers.LIBRARIES[library][ready.op.name](ready.arguments, [np.zeros_like(out) for out in ready.outs])
        answer = agreement(ready, theirs(), exact, peer=True)
        if not answer.right:
            raise SystemExit(f"{library} gives another answer for {name}: {answer.reason}")
        calls[library] = lambda number, theirs=theirs: theirs()  # type: ignore[misc]
    readings = interleave({**calls, **{p.name: p.call for p in probes}}, samples)
    rates = {p.name: p.amount / readings[p.name].median for p in probes}
    return Row(name=name, goal=goal, value=value(readings["tridsl"], rates), readings=readings, missing=tuple(n for n in libraries if not here[n]))


def small_call_row(samples: int) -> Row:
    """z = x + y on 16 elements with out=: what a call costs."""
    op: Any = tridsl.compile("op add(x: f32[N], y: f32[N]) -> z: f32[N] {\n  z[i] = x[i] + y[i]\n}").add
    x, y, z = (np.arange(16, dtype=np.float32) + i for i in range(3))
    op(x, y, out=z)
    assert np.array_equal(z, x + y)

    def ours(number: int) -> None:
        for _ in range(CALLS):
            op(x, y, out=z)

    def numpy(number: int) -> None:
        add = np.add
        for _ in range(CALLS):
            add(x, y, out=z)

    calls: dict[str, Call] = {"tridsl": ours, "numpy": numpy}
    if importlib.util.find_spec("numba"):
        from numba import njit  # a peer, where it is installed

        @njit
        def compiled(x: Any, y: Any, z: Any) -> None:
            for i in range(z.size):
                z[i] = x[i] + y[i]

        def numba(number: int) -> None:
            for _ in range(CALLS):
                compiled(x, y, z)

        calls["numba"] = numba
    taken = {n: Reading(median=r.median / CALLS, p10=r.p10 / CALLS, p90=r.p90 / CALLS, samples=r.samples) for n, r in interleave(calls, samples).items()}
    missing = () if "numba" in calls else ("numba",)
    return Row(name="call, three arrays of 16, out=", goal=Goal(floor=500, goal=200, unit="ns"), value=taken["tridsl"].median * 1e9, readings=taken, missing=missing)


FIRST_CALL = """
import time, numpy as np, tridsl
x = np.ones((64, 512), np.float32)
start = time.perf_counter()
tridsl.stdlib.softmax(x)
print(time.perf_counter() - start)
"""


def process_rows(processes: int) -> list[Row]:
    """Start-up: processes in turn, each with its own environment."""

    def wall(code: str) -> float:
        start = perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, env=BYTECODE)
        return perf_counter() - start

    def first_call(cache: str) -> float:
        environment = {**BYTECODE, "XDG_CACHE_HOME": cache}
        return float(subprocess.run([sys.executable, "-c", FIRST_CALL], check=True, capture_output=True, text=True, env=environment).stdout)

    taken: dict[str, list[float]] = {"import": [], "numpy": [], "cold": [], "warm": []}
    with tempfile.TemporaryDirectory(prefix="tridsl-speed-") as folder:
        wall("import tridsl")  # byte code is written
        for number in range(processes):
            start = wall("pass")
            taken["import"].append(wall("import tridsl") - start)
            taken["numpy"].append(wall("import numpy") - start)
            cache = str(Path(folder) / str(number))
            taken["cold"].append(first_call(cache))
            taken["warm"].append(first_call(cache))
    found = {name: reading(times) for name, times in taken.items()}
    rows = (
        ("import tridsl, without Python's own start", "import", Goal(floor=250, goal=110, unit="ms"), {"numpy": found["numpy"]}),
        ("first softmax of a process, empty cache", "cold", Goal(floor=150, goal=50, unit="ms"), {}),
        ("first softmax of a process, warm cache", "warm", Goal(floor=30, goal=5, unit="ms"), {}),
    )
    return [Row(name=name, goal=goal, value=found[key].median * 1e3, readings={"tridsl": found[key], **others}) for name, key, goal, others in rows]


def rows(samples: int, processes: int, small: bool) -> list[Row]:
    """Every promise."""
    probes = peaks.probes(find("cpu").device, 1)
    size, side, height, width, count = (64, 256, 108, 192, 100_000) if small else (1024, 4096, 1080, 1920, 10_000_000)
    matmul = cases.Case(operation="stdlib:matmul", sizes={"M": size, "K": size, "N": size})
    made = [
        op_row(f"f32 matmul {size}", matmul, Goal(floor=88, goal=95, unit="% of fma", more=True),
               lambda r, rates: 100 * 2 * size**3 / r.median / rates["fma"], ("numpy",), samples, probes),
    ]  # fmt: skip
    for op in ("softmax", "layernorm"):
        case = cases.Case(operation=f"stdlib:{op}", shapes={"x": (side, side)})
        made.append(
            op_row(f"f32 {op} {side}x{side}, out=", case, Goal(floor=60, goal=92, unit="% of copy", more=True),
                   lambda r, rates: 100 * 8 * side**2 / r.median / rates["copy"], ("numpy", "torch"), samples, probes)
        )  # fmt: skip
    edges = cases.Case(operation="stdlib:edges", sizes={"H": height, "W": width}, scalars={"threshold": 100})
    above = cases.Case(operation="stdlib:above", sizes={"N": count}, scalars={"t": 0.5})
    made += [
        op_row(f"edges {width}x{height}", edges, Goal(floor=0.35, goal=0.2, unit="ns/pixel"),
               lambda r, rates: 1e9 * r.median / height / width, ("opencv",), samples, probes),
        op_row(f"above {count:.0e}, values and positions", above, Goal(floor=0.35, goal=0.2, unit="ns/element"),
               lambda r, rates: 1e9 * r.median / count, ("numpy", "numba"), samples, probes),
        small_call_row(samples),
        *process_rows(processes),
    ]  # fmt: skip
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--small", action="store_true", help="small sizes, to try the script")
    parser.add_argument("--samples", type=int, default=30)
    arguments = parser.parse_args()
    start_with_threads(1, sys.argv)
    cores = pin(1)
    peers.set_threads(1)
    if importlib.util.find_spec("torch"):
        peers.keep_memory()
    found = rows(arguments.samples, 3 if arguments.small else PROCESSES, arguments.small)
    if arguments.json:
        machine = {"device": find("cpu").device.description, "cores": list(cores), "small": arguments.small}
        print(json.dumps({"machine": machine, "rows": [row.data() for row in found]}, indent=2))
    else:
        table = Table("", "ours", "figure", "floor", "goal", "verdict", "peers (their time over ours)", "not installed", "label", box=None, pad_edge=False)
        for row in found:
            ours = seconds(row.readings["tridsl"].median) if "tridsl" in row.readings else ""
            figure = f"{row.value:.3g} {row.goal.unit}"
            table.add_row(row.name, ours, figure, f"{row.goal.floor:g}", f"{row.goal.goal:g}", row.verdict, row.beside, ", ".join(row.missing), "measured")
        Console(width=None if sys.stdout.isatty() else 200).print(table)
    if any(row.wrong for row in found):
        return 70
    return 1 if any(row.verdict == "missed" for row in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())
