"""One row on a device with memory of its own: arrays stay there, and both sides are timed by the device's clock.

Its yardstick is a copy of much more than the caches hold, by a kernel of our own and (where it is here) by PyTorch; `copy` is the faster.
Ours, theirs and the copies take turns. What a call costs besides, its transfers above all, is not in these figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, field
from typing import Any, Self

import numpy as np

from tridsl.api.compilation import compiled
from tridsl.api.devices import find
from tridsl.api.engine import Services
from tridsl.backend import Device, Keeps, Signature, Timed
from tridsl.cli.bench import cases
from tridsl.cli.bench.cases import Case
from tridsl.cli.bench.contest import Prepared, agreement, bound_call, prepare, reference
from tridsl.cli.bench.goals import judge
from tridsl.cli.bench.measure import US
from tridsl.cli.bench.peers import cuda
from tridsl.cli.bench.rows import Row
from tridsl.cli.bench.sampling import Reading, reading
from tridsl.cli.bench.session import Session
from tridsl.cli.targets import services_for
from tridsl.diagnostics import TriError, error
from tridsl.dtypes import NUMPY_TYPES
from tridsl.ir.affine import evaluate_index
from tridsl.ir.expr import Var
from tridsl.ir.op import Op, Scalar, Tensor
from tridsl.structs import dataclass, replace

REGIME = "device"
ROUNDS = 3
"""Turns of everybody; each brings a third of the samples."""
WARM_SECONDS = 0.1
"""A device that has idled takes a while to reach its clocks."""
TURN_SECONDS = 0.1
"""Of a turn, at most: slow kernels give fewer samples."""
COPY_BYTES, SOFTWARE_COPY_BYTES = 1 << 30, 1 << 24
"""Read and written by one copy: many times the last cache of any GPU of today; of a software device, little enough to wait for."""
COMPARED = 1 << 20
"""Elements of a result that are compared, of rows whose results do not depend on each other: whole rows, evenly spread."""

Sampler = Callable[[int], Sequence[float]]
"""Seconds of each of some runs, at most as many as are asked for."""


def measure_on_device(row: Row, session: Session) -> dict[str, Any]:
    """A row of the document: everybody's answers, readings on the device, the figure and its verdict."""
    services = services_for(session.settings)
    ready = prepare(row.case, services)
    found: dict[str, Any] = {"name": row.name, "operation": row.case.operation, "case": row.case.title, "regime": REGIME, "bytes": ready.bytes}
    with Kernel(ready=ready, services=services, device=session.device) as kernel:
        part = _part(ready) if row.sampled else _Part(ready=ready)
        exact = reference(part.ready)
        kernel.sample(1)
        results = kernel.results()
        moved = ready.bytes - ready.written + sum(one.nbytes for one in results)  # of results up to a length, what is there
        mine = agreement(part.ready, part.of(results), exact)
        right = mine.worst <= row.loose * mine.limit
        found |= {"correct": right, "error": mine.worst if right else mine.reason, "bytes": moved}
        if not right:
            return found
        samplers: dict[str, Sampler] = {US: kernel.sample}
        if session.options.peers:
            samplers |= _peers(row, ready, part, exact, found)
        with Copies(services=services, device=session.device, peers=session.options.peers) as copies:
            readings = in_turn({**samplers, **copies.samplers()}, session.samples)
    flop = row.case.flop if row.case.flop is not None else cases.multiply_adds(ready.whole, ready.sizes)
    rates = {name: copies.bytes / readings[name].median for name in readings if name not in samplers}
    rates["copy"] = max(rates.values())
    contestants = {name: _contestant(name, row, readings, rates, moved, flop) for name in samplers}
    peaks = {name: {"rate": rate, "unit": "B/s", "label": "measured"} for name, rate in rates.items()}
    found["readings"] = {REGIME: {"contestants": contestants, "peaks": peaks, "rotated_bytes": 0}}
    return found | _verdict(row, contestants)


def _contestant(name: str, row: Row, readings: Mapping[str, Reading], rates: Mapping[str, float], moved: int, flop: int) -> dict[str, Any]:
    """A reading with its figure in the goal's unit; arithmetic as a rate, everything else as a part of the copies' bandwidth."""
    own = readings[name]
    data: dict[str, Any] = dict(own.data())
    if flop:
        data["flop_per_second"] = flop / own.median
    else:
        data |= {"roof": "copy", "fraction": moved / own.median / rates["copy"]}
    against = row.against
    value = row.value(own.median, rates, moved) if against is None else readings[against].median / own.median if against in readings else None
    return data if value is None else data | {"value": value}


def _verdict(row: Row, contestants: Mapping[str, Any]) -> dict[str, Any]:
    if row.goal is None:
        return {}
    value, goal = contestants[US].get("value"), asdict(row.goal)
    if value is None:
        return {"goal": goal, "value": None, "verdict": f"no {row.against} here"}
    others = {name: one["value"] for name, one in contestants.items() if name != US}
    return {"goal": goal, "value": value} | judge(row.goal, value, others).data()


def in_turn(samplers: Mapping[str, Sampler], samples: int) -> dict[str, Reading]:
    """Everybody warm, then in turns."""
    for sample in samplers.values():
        spent = 0.0
        while spent < WARM_SECONDS:
            spent += sum(sample(ROUNDS)) or WARM_SECONDS
    taken: dict[str, list[float]] = {name: [] for name in samplers}
    for _ in range(ROUNDS):
        for name, sample in samplers.items():
            taken[name] += sample(-(-samples // ROUNDS))
    return {name: reading(times) for name, times in taken.items()}


def keeper(device: Device) -> Keeps:
    """The driver of a device that has memory of its own. E0814."""
    driver = find(device.name).backend.driver()
    if not isinstance(driver, Keeps):
        raise error("E0814", f"`{device}` keeps no arrays of its own", help="`tridsl bench --suite gpu --device gpu:software` runs on any machine with Vulkan")
    return driver


@dataclass(slots=True, kw_only=True, eq=False)
class Kernel:
    """The kernel of a case with its arrays on the device. A context: it gives them back."""

    ready: Prepared
    services: Services
    device: Device
    _driver: Any = None
    _executable: Any = None
    _signature: Signature | None = None
    _slots: list[Any] = field(default_factory=list)
    _kept: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._driver = keeper(self.device)
        binary, _ = compiled(*bound_call(self.ready, self.services, self.device.name, 1))
        self._executable = self._driver.load(binary, self.device)
        self._signature = binary.signature
        try:
            self._place(binary.signature)
        except TriError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *problem: object) -> None:
        for kept in self._kept.values():
            self._driver.drop(kept, self.device)
        self._kept.clear()

    def _place(self, signature: Signature) -> None:
        arguments = self.ready.arguments
        for param in signature.params:
            if isinstance(param, Scalar):
                self._slots.append(arguments[param.name])
                continue
            array = arguments[param.name] if param.role == "input" else np.zeros(self._shape(param), NUMPY_TYPES[param.dtype])
            self._kept[param.name] = self._driver.keep(np.ascontiguousarray(getattr(array, "array", array)), self.device)
            self._slots.append(self._kept[param.name])
        self._slots += [self.ready.sizes[name] for name in signature.sizes]

    def _shape(self, param: Tensor) -> tuple[int, ...]:
        return tuple(evaluate_index(extent, self.ready.sizes) for extent in param.shape)

    def sample(self, runs: int) -> tuple[float, ...]:
        if not isinstance(self._executable, Timed):
            raise error("E0711", f"device `{self.device}` has no time stamps", help="measure with the host's clock")
        return self._executable.timed(self._slots, 1, TURN_SECONDS, runs)

    def results(self) -> tuple[Any, ...]:
        """What the op returns; run-time lengths are cut."""
        assert self._signature is not None
        fetched = {}
        for param in self._signature.params:
            if not isinstance(param, Scalar) and param.role == "output":
                fetched[param.name] = np.empty(self._shape(param), NUMPY_TYPES[param.dtype])
                self._driver.fetch(self._kept[param.name], fetched[param.name], self.device)
        return tuple(fetched[t.name][: int(fetched[t.length])] if t.length else fetched[t.name] for t in self.ready.op.outputs)


@dataclass(slots=True, kw_only=True, eq=False)
class Copies:
    """The yardstick: `bytes` read and written by one copy. A context: it gives the arrays back."""

    services: Services
    device: Device
    peers: bool
    bytes: int = 0
    _kernel: Kernel | None = None

    def __enter__(self) -> Self:
        self.bytes = SOFTWARE_COPY_BYTES if self.device.spec.software else min(COPY_BYTES, (self.device.spec.memory_bytes or COPY_BYTES) // 8)
        case = Case(operation="bench:copy", sizes={"N": self.bytes // 8})
        ready = prepare(case, self.services, arrays={"x": np.zeros(self.bytes // 8, np.float32)})
        self._kernel = Kernel(ready=ready, services=self.services, device=self.device).__enter__()
        return self

    def __exit__(self, *problem: object) -> None:
        if self._kernel is not None:
            self._kernel.__exit__()

    def samplers(self) -> dict[str, Sampler]:
        assert self._kernel is not None
        found: dict[str, Sampler] = {"copy kernel": self._kernel.sample}
        torch = cuda.pytorch() if self.peers else None
        if torch is not None:
            source = torch.zeros(self.bytes // 8, device="cuda")
            target = torch.zeros_like(source)
            found[f"copy {cuda.NAME}"] = lambda runs: cuda.device_seconds(torch, lambda: target.copy_(source), runs)
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """What is compared: everything, or `rows` of the first axis."""

    ready: Prepared
    rows: Any = None

    def of(self, results: Any) -> tuple[Any, ...]:
        several = results if isinstance(results, tuple) else (results,)
        return several if self.rows is None else tuple(one[self.rows] for one in several)


def _part(ready: Prepared) -> _Part:
    """Some rows of the results, with the arguments that they are made of: those with the same first axis."""
    (result,) = ready.whole.outputs
    extent = result.shape[0]
    assert isinstance(extent, Var)
    out = ready.outs[0]
    count = max(1, min(len(out), COMPARED * len(out) // max(1, out.size)))
    rows = np.unique(np.linspace(0, len(out) - 1, count).astype(np.int64))
    plain = ready.plain
    for tensor in ready.whole.tensors:
        if tensor.role == "input" and tensor.shape and tensor.shape[0] == extent:
            plain[tensor.name] = np.ascontiguousarray(plain[tensor.name][rows])
    small = replace(ready, arguments=plain, outs=(out[rows],), sizes={**ready.sizes, extent.name: len(rows)})
    return _Part(ready=small, rows=rows)


def _peers(row: Row, ready: Prepared, part: _Part, exact: Mapping[str, Any], found: dict[str, Any]) -> dict[str, Sampler]:
    """Who knows the op and gives the right answer, on its own arrays; `found` gets the others with their reasons."""
    torch = cuda.pytorch()
    found |= {"peers": {}, "slow": {}, "missing": [], "elsewhere": []}
    kept: dict[str, Sampler] = {}
    if not ready.case.is_ours:
        return kept
    for name, function in cuda.peers_of(ready.op.name):
        if torch is None:
            found["missing"].append(name)
            continue
        try:
            torch.cuda.empty_cache()
            call = function(torch, cuda.tensors_of(torch, ready.plain), cuda.outs_of(torch, ready.outs))
            if call is None:
                continue
            given = call()
            results = tuple(cuda.array_of(t) for t in (given if isinstance(given, tuple) else (given,)))
            answer = agreement(_as_returned(part.ready, results), part.of(results), exact, peer=True)
        except Exception as problem:  # noqa: BLE001 (another library's failure is its row's, not ours)
            found["peers"][name] = f"raises {type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"
            continue
        right = answer.worst <= row.loose * answer.limit
        found["peers"][name] = answer.worst if right else answer.reason
        if right:
            kept[name] = lambda runs, call=call: cuda.device_seconds(torch, call, runs)  # type: ignore[misc]
    return kept


def _as_returned(ready: Prepared, results: Sequence[Any]) -> Prepared:
    """The case with results of the types that a library gives them: what it rounds to f16 is right to within f16."""
    types = {str(np.dtype(kind)): dtype for dtype, kind in NUMPY_TYPES.items()}
    given = {t.name: types[str(a.dtype)] for t, a in zip(ready.op.outputs, results) if str(a.dtype) in types}

    def own(op: Op) -> Op:
        return replace(op, params=tuple(replace(p, dtype=given[p.name]) if p.name in given and p.dtype.is_float else p for p in op.params))

    return replace(ready, op=own(ready.op))
