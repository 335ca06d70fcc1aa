"""From a Python call to a checked op with batch axes, solved sizes and checked contracts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tridsl.api import calls
from tridsl.api.arguments import Array, as_dtype
from tridsl.api.calls import Given
from tridsl.api.families import Family, make_family
from tridsl.api.modules import TriModule
from tridsl.api.signatures import OPTIONS, Overload, bind
from tridsl.check.lift import lift
from tridsl.check.sizes import Number, solve
from tridsl.diagnostics import error
from tridsl.dtypes import TRIT, DType
from tridsl.ir.op import Contract, Op, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray  # 5 ms of start-up time

OPTION_NAMES = tuple(name for name, _ in OPTIONS)


class Options(NamedTuple):
    """Keywords of a call that are not the op's. `tune`: a better schedule is to be looked for in the background. `given` are those
    that were written, for recognising the call again."""

    out: Any
    device: str
    threads: int | None
    types: tuple[tuple[str, DType], ...]
    given: tuple[tuple[str, object], ...]
    tune: bool = False

    @property
    def outs(self) -> tuple[Any, ...] | None:
        return self.out if self.out is None or isinstance(self.out, tuple) else (self.out,)


NO_OPTIONS = Options(out=None, device="auto", threads=None, types=(), given=())


class Call(NamedTuple):
    """A call whose op is known. `values` are the arguments as passed, `given` its tensors, `numbers` every scalar in its type."""

    family: Family
    values: Mapping[str, Any]
    given: Mapping[str, Given]
    numbers: Mapping[str, Number]

    @property
    def first(self) -> Any:
        """The first array argument, whose type the results have; packed ones do not count. None if there is none."""
        return next((self.values[name] for name, argument in self.given.items() if argument.layout == "row"), None)

    @property
    def constants(self) -> dict[str, Number]:
        return {s.name: self.numbers[s.name] for s in self.family.scalars if s.const}


class Resolved(NamedTuple):
    """What depends on the shapes of a call.

    `header` is the op without stages, `extra` leading axes in front of each of its inputs; `seen` the inputs' shapes after
    broadcasting; `checks` the contracts that need the values of scalars; `shapes` those of the results. `outputs`, `trits`
    (elements to be checked) and `updated` (written in place) are picked out of the header once.
    """

    header: Op
    outputs: tuple[Tensor, ...]
    trits: bool
    updated: tuple[str, ...]
    extra: tuple[int, ...]
    seen: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]
    checks: tuple[Contract, ...]
    shapes: Mapping[str, tuple[int, ...]]

    def arrays(self, given: Mapping[str, Given]) -> dict[str, NDArray[Any]]:
        """The tensors passed, broadcast without a copy; packed ones are their bytes."""
        return {
            name: a.array
            if a.layout != "row" or a.shape == self.seen[name]
            else np.broadcast_to(a.array, self.seen[name])
            for name, a in given.items()
            if isinstance(a, Array)
        }


def split_options(
    name: str, overloads: tuple[Overload, ...], keywords: Mapping[str, Any]
) -> tuple[Options, dict[str, Any]]:
    """Options, and the keywords that are parameters (or unknown). A parameter named like an option hides the option."""
    if not keywords:
        return NO_OPTIONS, {}
    choices = {t.name: t for overload in overloads for t in overload.types}
    parameters = {p.name for overload in overloads for p in overload.parameters}
    taken = {k: v for k, v in keywords.items() if k not in parameters and (k in choices or k in OPTION_NAMES)}
    rest = {k: v for k, v in keywords.items() if k not in taken}
    types = tuple(
        (k, _type(name, k, v, choices[k].choices)) for k, v in taken.items() if k in choices and v is not None
    )
    threads = taken.get("threads")
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise error("E0538", f"{name}() got threads={threads!r}", help="threads is a whole number of at least 1")
    if not isinstance(taken.get("tune", False), bool):
        raise error("E0538", f"{name}() got tune={taken['tune']!r}", help="tune is True or False; how long is the business of `tridsl tune`")
    device = taken.get("device")
    given = tuple((k, v) for k, v in sorted(taken.items()) if k != "out")
    return Options(
        out=taken.get("out"),
        device="auto" if device is None else str(device),
        threads=threads,
        types=types,
        given=given,
        tune=taken.get("tune", False),
    ), rest


def _type(name: str, keyword: str, value: Any, choices: tuple[str, ...]) -> DType:
    dtype = as_dtype(value)
    if dtype is None:
        raise error(
            "E0533",
            f"{name}() got {keyword}={value!r}, which is not an element type",
            help=f"choices: {', '.join(choices)}",
        )
    return dtype


def identify(
    module: TriModule, name: str, families: dict[Any, Family], args: tuple[Any, ...], keywords: Mapping[str, Any]
) -> tuple[Call, Options]:
    """The op a call means, by the types and ranks of its arguments. `families` remembers."""
    overloads = module.op(name).overloads
    options, rest = split_options(name, overloads, keywords)
    overload, values = bind(name, overloads, args, rest)[0]
    given, scalars = calls.describe(values, overload)
    tensors = tuple((n, argument.dtype, len(argument.shape)) for n, argument in given.items())
    key = (
        tuple((n, dtype.name, rank) for n, dtype, rank in tensors),
        tuple(scalars),
        tuple((n, t.name) for n, t in options.types),
    )
    family = families.get(key)
    if family is None:

        def load() -> Op:
            from tridsl.check.overloads import select  # start-up time: a warm process has no need of syntax and meaning
            from tridsl.check.types import check_op

            described: dict[str, tuple[DType | None, int]] = {n: (dtype, rank) for n, dtype, rank in tensors}
            described |= dict.fromkeys(scalars, (None, 0))
            overload, types = select(module.bound, name, (), (), dict(options.types), keywords=described)
            return check_op(module.bound, overload, types)

        family = make_family(module, (name, *key), load)
        calls.check_tensors(family.header, given)
        families[key] = family
    numbers = calls.convert_scalars(family.header, scalars, given)
    return Call(family=family, values=values, given=given, numbers=numbers), options


def resolve(call: Call) -> Resolved:
    """Batch axes, sizes, contracts and result shapes. Raises E0524, and E0504-E0506, E0510, E0511, E0601 of `check`."""
    header = call.family.header
    batch = calls.batch_shape(header, call.given)
    ranks = {t.name: len(t.shape) for t in header.tensors if t.role != "output"}
    seen = {name: calls.broadcast(call.given[name].shape, batch, rank) for name, rank in ranks.items()}
    extra = tuple(len(seen[name]) - rank for name, rank in ranks.items())
    lifted = lift(header, extra)
    sizes = solve(lifted, seen, call.numbers)
    shapes = calls.result_shapes(lifted, {**call.numbers, **sizes})
    return Resolved(
        header=lifted,
        outputs=lifted.outputs,
        trits=any(t.dtype == TRIT and t.role != "output" for t in lifted.tensors),
        updated=tuple(t.name for t in lifted.tensors if t.role == "inout"),
        extra=extra,
        seen=seen,
        sizes=sizes,
        checks=calls.runtime_contracts(header),
        shapes=shapes,
    )


def whole_op(call: Call, resolved: Resolved) -> Op:
    """The op with its stages and batch axes; parses and checks the text when this process has not."""
    return lift(call.family.op, resolved.extra)


def host_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Row-major contiguous arrays, copied where they are not."""
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}
