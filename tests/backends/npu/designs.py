"""Library ops laid out for an array and run on the simulated one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from tests.stdlib.calling import prepared
from tridsl import pipeline
from tridsl.backends.npu import BACKEND
from tridsl.backends.npu.build_sim import Library, compile_library
from tridsl.backends.npu.design import ArrayDesign
from tridsl.backends.npu.driver import process_driver, word_of
from tridsl.backends.npu.emit import KERNELS, files_of
from tridsl.backends.npu.gather import gathered
from tridsl.backends.npu.lower_array import Laid
from tridsl.backends.npu.memory import ELEMENTS, from_array_order, to_array_order
from tridsl.backends.npu.simulate import Simulator
from tridsl.devices.spec import DeviceSpec, load_chip
from tridsl.dtypes import NUMPY_TYPES
from tridsl.ir.evaluate import evaluate_op
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Op, Scalar
from tridsl.passes.specialise import Specialisation
from tridsl.program.compose import with_constants
from tridsl.schedule.automatic import choices, choose

GENERATIONS = ("aie2", "aie2p")
UNOPTIMISED = ("-O0",)
"""How kernels of tests are compiled: they run once or twice on small arrays. Calls by `npu:sim` keep the simulator's own options."""
Results = dict[str, NDArray[Any]]


@cache
def chip(generation: str) -> DeviceSpec:
    return replace(load_chip(generation), software=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A call of a library op, compiled for one generation."""

    op: Op
    arguments: dict[str, Any]
    sizes: dict[str, int]
    kernel: Kernel
    laid: Laid
    text: str
    generation: str

    @property
    def design(self) -> ArrayDesign:
        return self.laid.design

    @property
    def kernels(self) -> str:
        return files_of(self.text)[KERNELS]

    def want(self) -> Results:
        found = wanted(self.op, self.arguments, self.sizes)
        return {t.name: np.asarray(found[t.name])[: int(found[t.length])] if t.length else np.asarray(found[t.name]) for t in self.op.outputs}

    def simulator(self, design: ArrayDesign | None = None, kernels: str | None = None) -> Simulator:
        """Of this design and text, or of changed ones."""
        facts = chip(self.generation).array
        assert facts is not None
        library = Library(compile_library(kernels or self.kernels, self.generation, UNOPTIMISED))
        return Simulator(design or self.design, library, facts.lock_maximum, facts.shim_queue_tasks)

    def results(self, simulator: Simulator | None = None, dispatches: int = 1) -> Results:
        simulator = simulator or self.simulator()
        laid: Results = {}
        for tensor in simulator.design.tensors:
            empty = np.zeros(int(np.prod(tensor.shape)), ELEMENTS[tensor.element_bytes])
            laid[tensor.name] = to_array_order(np.asarray(self.arguments[tensor.name]), tensor) if tensor.role == "input" else empty
        scalars = {p.name: word_of(p, self.arguments[p.name]) for p in self.op.params if isinstance(p, Scalar)}
        for _ in range(dispatches):
            simulator.run(laid, scalars)
        found: Results = {}
        for gather, values in gathered(simulator.design, laid):
            found[gather.result] = values
        packed = {g.packed for g in simulator.design.gathers}
        for tensor in simulator.design.tensors:
            if tensor.role == "output" and tensor.name not in packed:
                param = next(t for t in self.op.outputs if t.name == tensor.name)
                found[tensor.name] = np.empty(tensor.given, NUMPY_TYPES[param.dtype])
                from_array_order(laid[tensor.name], tensor, found[tensor.name])
        return found


def wanted(op: Op, arguments: Mapping[str, Any], sizes: Mapping[str, int]) -> Results:
    """The interpreter's answer: floats as they would be without rounding; integers that are made of floats as they are with it, which decides ties."""
    rounded = {t.name for t in op.outputs if t.dtype.is_integer}
    found: Results = dict(evaluate_op(op, arguments, sizes, exact=True))
    if rounded:
        again = evaluate_op(op, arguments, sizes)
        found |= {name: again[name] for name in rounded}
    return found


def called(name: str, *arguments: Any, generation: str, asked: Callable[[str], Any]) -> tuple[Results, Results]:
    """What a call of a library op gives on the simulated array, launch by launch, and what the interpreter gives. `asked`: the answer of each
    decision of the automatic schedule by its name, None for its default."""
    op, given, sizes = prepared(name, arguments, {}, {})
    given |= {p.name: p.default.value for p in op.inputs if isinstance(p, Scalar) and p.name not in given and p.default is not None}
    op = with_constants(op, {p.name: given.pop(p.name) for p in op.inputs if isinstance(p, Scalar) and p.const})
    spec = chip(generation)
    answers = {c.name: found for c in choices(op, spec, sizes, {}) if (found := asked(c.name)) in c.values}
    side = pipeline.Build(spec=spec, backend=BACKEND, schedule=choose(op, spec, sizes, answers), facts=Specialisation(sizes=tuple(sorted(sizes.items()))))
    binary = pipeline.build(op, side)
    device = process_driver().played(f"npu:sim:{generation}")
    assert device is not None
    with np.errstate(all="ignore"):
        want = wanted(op, given, sizes)
    slots = [given[p.name] if p.name in given else np.zeros(np.shape(want[p.name]), NUMPY_TYPES[p.dtype]) for p in binary.signature.params]
    process_driver().load(binary, device)(slots, 1)
    results = {p.name: value for p, value in zip(binary.signature.params, slots) if p.name not in given}
    ends = {t.name: int(want[t.length]) for t in op.outputs if t.length}
    return ({n: v[: ends[n]] if n in ends else v for n, v in results.items()}, {n: np.asarray(want[n])[: ends[n]] if n in ends else np.asarray(want[n]) for n in results})


def subject(
    name: str, *arguments: Any, generation: str = "aie2p", types: Mapping[str, str] | None = None, decisions: Mapping[str, Any] | None = None,
    text: str | None = None,
) -> Subject:  # fmt: skip
    """Op `name` (of the library, or of `text`) for these arguments, with other answers of the automatic schedule where given."""
    op, given, sizes = prepared(text or name, arguments, dict(types or {}), {})
    for param in op.inputs:
        if isinstance(param, Scalar) and param.name not in given:
            assert param.default is not None
            given[param.name] = param.default.value
    constants = {p.name: given.pop(p.name) for p in op.inputs if isinstance(p, Scalar) and p.const}
    op = with_constants(op, constants)
    spec = chip(generation)
    side = pipeline.Build(
        spec=spec, backend=BACKEND, schedule=choose(op, spec, sizes, dict(decisions or {})), facts=Specialisation(sizes=tuple(sorted(sizes.items())))
    )
    seen: dict[str, Any] = {}
    pipeline.lower(op, side, until="emit", on_stage=lambda stage, value, seconds: seen.__setitem__(stage, value))
    return Subject(op=op, arguments=given, sizes=sizes, kernel=seen["finish"], laid=seen["array"], text=seen["emit"].text, generation=generation)


def agree(got: Results, want: Results) -> None:
    """Integers exactly; floats within what their rounding and the kernels' approximations may do (reference/kernels.md 4)."""
    for name, value in want.items():
        if value.dtype.kind in "iub":
            np.testing.assert_array_equal(got[name], value, err_msg=name)
            continue
        narrow = got[name].dtype == np.dtype(ml_dtypes.bfloat16)
        exact = value.astype(np.float64)
        with np.errstate(invalid="ignore"):
            finite = np.abs(exact)[np.isfinite(exact)]
        scale = float(finite.max()) if finite.size else 1.0
        np.testing.assert_allclose(
            got[name].astype(np.float64), exact, rtol=4e-3 if narrow else 1e-5, atol=scale * (1e-4 if narrow else 1e-6), err_msg=name
        )


