"""`FILE:OP` and the values given by `--shape`, `--set` and `--input`: from texts to an op and its arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tridsl import stdlib
from tridsl.api.engine import Engine, Services
from tridsl.api.library import resolver_for
from tridsl.api.modules import TriModule
from tridsl.api.ops import OpObject, make_op
from tridsl.api.store import DiskStore
from tridsl.autotune.serving import Serving
from tridsl.check.lift import lift
from tridsl.check.signature import type_choices
from tridsl.check.sizes import Number, evaluate
from tridsl.check.types import check_op
from tridsl.cli.files import read_text
from tridsl.cli.settings import Settings
from tridsl.diagnostics import SourceFile, error
from tridsl.dtypes import DTYPES, I8, NUMPY_TYPES, TRIT, DType
from tridsl.ir.expr import Var
from tridsl.ir.op import Op, Scalar, Tensor
from tridsl.ir.print_expressions import print_expr
from tridsl.ir.walk import variables
from tridsl.program.realise import Realiser
from tridsl.runtime.artifacts import Artifacts
from tridsl.structs import dataclass, replace
from tridsl.syntax.nodes import Operation

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Target:
    """Op `name` of a module, as the user named it."""

    module: TriModule
    name: str

    def op_object(self, services: Services) -> OpObject:
        """The op as Python calls it."""
        return make_op(Engine(module=self.module, name=self.name, services=services))


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the command line says about a call. `sizes` and `shapes` (whole tensors) are from `--shape`, `types` and `scalars` from `--set`."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    types: Mapping[str, DType] = field(default_factory=dict)
    scalars: Mapping[str, Number] = field(default_factory=dict)


def services_for(settings: Settings) -> Services:
    """The call layer on the cache and the personality that the settings name."""
    artifacts = Artifacts(settings.cache)
    return Services(realiser=Realiser(store=DiskStore(artifacts)), tuner=Serving(settings.personality), native=artifacts)


def find_source(file: str) -> tuple[SourceFile, Path]:
    """A `.tri` file, and the folder in which its `use` looks. E0803."""
    path = Path(file)
    return SourceFile(name=file, text=read_text(path)), path.parent


def find_module(file: str, services: Services) -> TriModule:
    """The ops of a `.tri` file. E0803, and what is wrong in it."""
    source, folder = find_source(file)
    return TriModule(source, resolver_for(stdlib.source, folder), services.realiser.store)


def find_target(text: str, services: Services) -> Target:
    """`kernels.tri:softmax`, `stdlib:softmax`, or a file with one op. E0801, E0803, E0534, and what is wrong in the file."""
    file, colon, name = text.rpartition(":")
    if not colon or Path(text).is_file():
        file, name = text, ""
    if file == "stdlib":
        source = stdlib.source(name)
        return Target(module=TriModule(source, resolver_for(stdlib.source, None), services.realiser.store, trusted=True), name=name)
    module = find_module(file, services)
    if not name:
        if len(module.ops) != 1:
            raise error("E0801", f"`{file}` has {len(module.ops)} ops, so one must be named", help=f"write {file}:{next(iter(module.ops), 'OP')}; its ops: {', '.join(module.ops) or 'none'}")
        name = next(iter(module.ops))
    module.op(name)
    return Target(module=module, name=name)


def pairs(option: str, texts: Iterable[str], *, commas: bool = True) -> dict[str, str]:
    """`M=512,N=4` and repeated options as a dictionary. E0804."""
    found: dict[str, str] = {}
    for text in texts:
        for part in text.split(",") if commas else (text,):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not (name and equals and value):
                raise error("E0804", f"{option} {text}: `{part}` is not of the form NAME=VALUE", help=f"write {option} {name or 'M'}={value or '512'}")
            if name in found:
                raise error("E0804", f"{option} gives `{name}` twice", help="give each name once")
            found[name] = value
    return found


def given(target: Target, shape: Sequence[str], values: Sequence[str]) -> Given:
    """The texts of `--shape` and `--set`, told apart by the names of the op. E0804, E0805."""
    overloads = [o.operation for o in target.module.bound.operations[target.name]]
    tensors = {p.name for o in overloads for p in (*o.parameters, *o.results) if p.type.dims is not None}
    scalars = {p.name for o in overloads for p in o.parameters if p.type.dims is None}
    types = {t.name for o in overloads for t in o.type_parameters}
    made = Given()
    for name, text in pairs("--shape", shape).items():
        if name in tensors:
            made = replace(made, shapes={**made.shapes, name: tuple(_extent(name, part) for part in text.split("x"))})
        elif name in scalars | types:
            raise error("E0805", f"`{name}` of `{target.name}` is no size", help=f"write --set {name}={text}")
        else:
            made = replace(made, sizes={**made.sizes, name: _extent(name, text)})
    for name, text in pairs("--set", values).items():
        if name in types:
            if text not in DTYPES:
                raise error("E0805", f"--set {name}={text}: there is no element type `{text}`", help=f"element types: {', '.join(DTYPES)}")
            made = replace(made, types={**made.types, name: DTYPES[text]})
        elif name in scalars:
            made = replace(made, scalars={**made.scalars, name: _number(name, text)})
        else:
            known = sorted(scalars | types)
            raise error("E0805", f"`{target.name}` has no scalar or type parameter `{name}`", help=f"it has {', '.join(known)}" if known else f"sizes are given by --shape {name}={text}")
    return made


def _extent(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise error("E0804", f"--shape {name}={text}: `{text}` is no whole number", help=f"write {name}=512, or a tensor's whole shape as x=8x512")
    return int(text)


def _number(name: str, text: str) -> Number:
    if text in ("true", "false"):
        return text == "true"
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    raise error("E0804", f"--set {name}={text}: `{text}` is no number", help=f"write {name}=0.5, {name}=3, {name}=true or {name}=inf")


def choose(target: Target, said: Given, arrays: Arrays) -> Op:
    """The op of the first overload and types (defaults preferred) that fit what was given. E0503."""
    bound = target.module.bound
    overloads = bound.operations[target.name]
    for overload in overloads:
        operation = overload.operation
        for types in sorted(type_choices(operation), key=lambda types: _unusual(operation, types)):
            if all(types.get(name) == dtype for name, dtype in said.types.items()) and _fits(operation, types, said, arrays):
                op = check_op(bound, overload, types)
                known = {*op.sizes, *(f"B{i}" for i in range(9))}
                unknown = [name for name in said.sizes if name not in known]
                if unknown:
                    raise error("E0805", f"`{op.name}` has no size `{unknown[0]}`", help=f"its sizes: {', '.join(op.sizes) or 'none'}")
                return op
    told = [f"{n}={t}" for n, t in said.types.items()] + [f"{n}: {a.dtype}[{', '.join(map(str, a.shape))}]" for n, a in arrays.items()]
    raise error("E0503", f"no overload of `{target.name}` fits {', '.join(told)}", notes=tuple(o.text.split("{")[0].strip() for o in target.module.op(target.name).overloads))


def _unusual(operation: Operation, types: Mapping[str, DType]) -> int:
    """Type parameters that are not at their default."""
    defaults = {t.name: t.default.name for t in operation.type_parameters if t.default is not None}
    return sum(types[name] != (types.get(default) or DTYPES.get(default)) for name, default in defaults.items())


def _fits(operation: Operation, types: Mapping[str, DType], said: Given, arrays: Arrays) -> bool:
    parameters = {p.name: p for p in operation.parameters}
    if not {*arrays, *said.scalars, *said.shapes} <= set(parameters):
        return False
    for name, rank, dtype in [(n, a.ndim, a.dtype) for n, a in arrays.items()] + [(n, len(s), None) for n, s in said.shapes.items()]:
        declared = parameters[name].type
        wanted = types.get(declared.dtype) or DTYPES[declared.dtype]
        if declared.dims is None or rank < len(declared.dims):
            return False
        if dtype is not None and dtype != NUMPY_TYPES[wanted] and not (dtype.kind == "V" and dtype.itemsize == wanted.storage_bytes):
            return False
    return True


def lifted(op: Op, said: Given, arrays: Arrays) -> Op:
    """The op mapped over the leading axes of what was given."""
    ranks = {**{n: len(s) for n, s in said.shapes.items()}, **{n: a.ndim for n, a in arrays.items()}}
    inputs = [t for t in op.tensors if t.role != "output"]
    return lift(op, tuple(ranks.get(t.name, len(t.shape)) - len(t.shape) for t in inputs))


def known_values(op: Op, said: Given, arrays: Arrays) -> dict[str, Number]:
    """Sizes and scalars that are known: given, read off shapes where a size stands alone, or defaults."""
    values: dict[str, Number] = {p.name: p.default.value for p in op.params if isinstance(p, Scalar) and p.default is not None}
    values |= dict(said.scalars)
    shapes = {**said.shapes, **{n: a.shape for n, a in arrays.items()}}
    for tensor in op.tensors:
        for dimension, extent in zip(tensor.shape, shapes.get(tensor.name, ())):
            if isinstance(dimension, Var):
                values.setdefault(dimension.name, extent)
    return {**values, **said.sizes}


def complete(op: Op, said: Given, arrays: Arrays, seed: int) -> dict[str, Any]:
    """Every argument of the call by name: `arrays`, and random elements for tensors whose shape is known. E0805 names what is missing.

    `op` is the op before `lifted`.
    """
    values = known_values(lifted(op, said, arrays), said, arrays)
    random = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    for parameter in op.inputs:
        name = parameter.name
        if isinstance(parameter, Scalar):
            if name in said.scalars:
                found[name] = said.scalars[name]
            elif parameter.default is None:
                raise error("E0805", f"`{op.name}` needs a value for `{name}` ({parameter.dtype})", help=f"add --set {name}=…")
        elif name in arrays:
            array = arrays[name]
            found[name] = array.view(NUMPY_TYPES[parameter.dtype]) if array.dtype.kind == "V" else array
        else:
            found[name] = random_elements(random, parameter.dtype, said.shapes[name] if name in said.shapes else _shape(op, parameter, values))
    return found


def scalar_values(op: Op, arguments: Mapping[str, Any]) -> dict[str, Number]:
    """The scalars of a complete call, defaults filled in."""
    defaults = {p.name: p.default.value for p in op.params if isinstance(p, Scalar) and p.default is not None}
    return defaults | {p.name: arguments[p.name] for p in op.params if isinstance(p, Scalar) and p.name in arguments}


def with_all_axes(op: Op, whole: Op, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `whole`, which is `op` mapped over leading axes: arrays with leading axes of extent 1 where they lack
    them, and every scalar."""
    ranks = {t.name: len(t.shape) for t in whole.tensors}
    arrays = {n: v.reshape((1,) * (ranks[n] - v.ndim) + v.shape) for n, v in arguments.items() if n in ranks}
    return arrays | scalar_values(op, arguments)


def _shape(op: Op, tensor: Tensor, values: Mapping[str, Number]) -> tuple[int, ...]:
    missing = sorted(variables(tensor.shape) - values.keys())
    if missing:
        declared = f"{tensor.name}: {tensor.dtype}[{', '.join(map(print_expr, tensor.shape))}]"
        raise error(
            "E0805", f"`{op.name}` needs the size {missing[0]} of `{declared}`",
            help=f"add --shape {','.join(f'{m}=…' for m in missing)}, or --input {tensor.name}=FILE.npy",
        )  # fmt: skip
    return tuple(int(evaluate(d, values)) for d in tensor.shape)


def random_elements(random: np.random.Generator, dtype: DType, shape: tuple[int, ...]) -> NDArray[Any]:
    """Normal floats; integers of the whole range up to 8 bits, of -1000..1000 beyond."""
    if dtype.is_float:
        return random.standard_normal(shape, dtype=np.float32).astype(NUMPY_TYPES[dtype])
    low, high = dtype.low or 0, 1 if dtype.high is None else dtype.high
    if dtype.bits > 8:
        low, high = max(low, -1000), min(high, 1000)
    drawn = random.integers(low, high, shape, dtype=np.int64, endpoint=True)
    return drawn.astype(NUMPY_TYPES[I8 if dtype == TRIT else dtype])
