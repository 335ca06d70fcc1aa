"""`x.unit(n)`; NumPy: `x[None]`. TVM: no such thing (an axis of length 1 is in the text of the computation)."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import TriError, error
from tridsl.ir.expr import Load, Var, index
from tridsl.ir.loop import Append, For, Kernel, Phase, Ref
from tridsl.ir.op import Param, Tensor
from tridsl.ir.walk import rewrite, walk
from tridsl.schedule.nest import stage_of
from tridsl.schedule.steps import Unit
from tridsl.structs import replace


def unit(kernel: Kernel, step: Unit, spec: DeviceSpec) -> Kernel:
    """
    before:  y: for m: for k: y[m] += W[m, k] * x[k]                                 x: i8[K]       x.unit(n)
    after:   y: for n < 1: for m: for k: y[n, m] += W[m, k] * x[n, k]                x: i8[1, K]

    Parameter `x`, and all that is made of it, has an axis of length 1 in front: one row of a matrix. What takes rows in blocks (a matrix instruction)
    then takes this one, filled up with zeros. The bytes of parameters and results are the same. E0401: there is no such input. E0498: the axis has the
    name of a loop, the input lies in its own layout, is no whole stage's to read, or a length depends on it.
    """
    given = next((p for p in kernel.params if isinstance(p, Tensor) and p.name == step.stage and p.role == "input"), None)
    if given is None:
        have = ", ".join(p.name for p in kernel.params if isinstance(p, Tensor) and p.role == "input")
        raise error("E0401", f"there is no input tensor `{step.stage}`", step.span, help=f"the input tensors are: {have}")
    if given.layout != "row" or given.strides is not None:
        raise _refused(step, "it does not lie in rows")
    lifted, through = _made_of(kernel, step)
    for phase in through:
        if any(n.var == f"{phase.name}:{step.axis}" for n in walk(phase) if isinstance(n, For)):
            raise _refused(step, f"`{phase.name}` has a loop `{step.axis}`")

    def one(phase: Phase) -> Phase:
        if phase not in through:
            return phase
        here = Var(name=f"{phase.name}:{step.axis}")
        body = rewrite(phase.body, {
            Load: lambda n: replace(n, index=(here, *n.index)) if n.tensor in lifted else n,
            Ref: lambda n: replace(n, index=(here, *n.index)) if n.tensor in lifted else n,
        })  # fmt: skip
        return replace(phase, body=(For(var=here.name, extent=index(1), body=body, span=step.span),))

    def rows(param: Param) -> Param:
        return replace(param, shape=(index(1), *param.shape)) if isinstance(param, Tensor) and param.name in lifted else param

    scratch = tuple(replace(b, shape=(index(1), *b.shape)) if b.name in lifted else b for b in kernel.scratch)
    return replace(kernel, params=tuple(map(rows, kernel.params)), scratch=scratch, phases=tuple(map(one, kernel.phases)))


def _made_of(kernel: Kernel, step: Unit) -> tuple[frozenset[str], tuple[Phase, ...]]:
    """The tensors that get the axis, and the stages that make them."""
    lifted = {step.stage}
    through: list[Phase] = []
    for phase in kernel.phases:
        nodes = list(walk(phase))
        if not any(isinstance(n, Load) and n.tensor in lifted for n in nodes):
            continue
        if any(isinstance(n, Append) for n in nodes) or any(stage_of(n.var) != phase.name for n in nodes if isinstance(n, For)):
            raise _refused(step, f"`{phase.name}` packs what it makes, or other stages are computed in it")
        lifted |= {n.tensor for n in nodes if isinstance(n, Ref)}
        through.append(phase)
    wanted = {p.name for p in kernel.params if isinstance(p, Tensor)} | {b.name for b in kernel.scratch}
    if not lifted <= wanted or any(n.tensor in lifted for p in kernel.phases if p not in through for n in walk(p) if isinstance(n, Ref)):
        raise _refused(step, "what is made of it is kept inside a stage, or made in two ways")
    if any(isinstance(p, Tensor) and p.name in lifted and (p.layout != "row" or p.strides is not None) for p in kernel.params):
        raise _refused(step, "a result does not lie in rows")
    return frozenset(lifted), tuple(through)


def _refused(step: Unit, why: str) -> TriError:
    return error(
        "E0498", f"`{step.stage}` cannot have an axis `{step.axis}` of length 1: {why}", step.span,
        help="write `.unit(…)` before the other verbs, with a name that no loop has",
    )  # fmt: skip
