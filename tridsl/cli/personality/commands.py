"""The command that measures a subject again, from its key: evidence knows what an op means, not how its user calls it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, combinations, product

from tridsl import stdlib
from tridsl.api.engine import Services
from tridsl.check.signature import type_choices
from tridsl.check.sizes import evaluate
from tridsl.check.types import check_op
from tridsl.cli.evidence import command_line
from tridsl.cli.personality.places import Place
from tridsl.cli.settings import Settings
from tridsl.cli.subjects import Question, subjects
from tridsl.cli.targets import find_target
from tridsl.diagnostics import TriError
from tridsl.ir.expr import Var
from tridsl.ir.op import Op, Scalar, Tensor

_TRIES = 200
"""Ways to write an op's arguments that are tried before the command is left with a gap."""


def command_of(place: Place, services: Services, settings: Settings) -> tuple[str, bool]:
    """The command, and whether it is known to measure this subject; else the file (`FILE`) is the user's to fill in."""
    if place.key.op in stdlib.names():
        for number, question in enumerate(_questions(place, services)):
            if number == _TRIES:
                break
            if _asks_for(question, place, services, settings):
                return command_line("tune", question), True
    sizes = tuple(f"{name}={size}" for name, size in place.sizes.items())
    question = Question(operation=f"FILE:{place.key.op}", shape=sizes, device=place.key.device, threads=place.threads, layouts=_layouts(place))
    return command_line("tune", question), False


def _layouts(place: Place) -> tuple[str, ...]:
    return tuple(f"{name}={layout}" for name, layout in place.key.layouts)


def _asks_for(question: Question, place: Place, services: Services, settings: Settings) -> bool:
    try:
        (found,) = subjects(question, services, settings)
    except (TriError, ValueError):
        return False
    return found.request.key == place.key


def _questions(place: Place, services: Services) -> Iterator[Question]:
    """Arguments spelt in every way that gives the element types and sizes of the key; others may still mean another op."""
    operation = f"stdlib:{place.key.op}"
    target = find_target(operation, services)
    bound = target.module.bound
    for overload in bound.operations[target.name]:
        for types in type_choices(overload.operation):
            try:
                op = check_op(bound, overload, types)
            except TriError:
                continue
            if tuple((t.name, t.dtype.name) for t in op.tensors) != place.key.dtypes:
                continue
            spelt = tuple(f"{name}={dtype}" for name, dtype in types.items())
            for constants, shape in product(_constants(op), _shapes(op, place.sizes)):
                yield Question(
                    operation=operation, shape=shape, values=(*spelt, *constants), device=place.key.device, threads=place.threads,
                    layouts=_layouts(place),
                )  # fmt: skip


def _constants(op: Op) -> Iterator[tuple[str, ...]]:
    """Truth values; other `const` parameters have their default."""
    flags = [p.name for p in op.params if isinstance(p, Scalar) and p.const and p.dtype.kind == "bool"]
    for truths in product(("false", "true"), repeat=len(flags)):
        yield tuple(f"{name}={truth}" for name, truth in zip(flags, truths))


def _shapes(op: Op, sizes: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """Sizes by name; of an op that is mapped over leading axes, the whole shapes of those tensors that may have them."""
    batch = sorted((name for name in sizes if name not in op.sizes), key=lambda name: (len(name), name))
    if not batch:
        yield tuple(f"{name}={sizes[name]}" for name in op.sizes if name in sizes)
        return
    inputs = [t for t in op.tensors if t.role != "output"]
    for some in chain.from_iterable(combinations(inputs, number) for number in range(len(inputs), 0, -1)):
        plain = {d.name for t in some for d in t.shape if isinstance(d, Var)}
        whole = tuple(f"{t.name}={'x'.join(str(n) for n in (*(sizes[b] for b in batch), *_extents(t, sizes)))}" for t in some)
        yield (*whole, *(f"{name}={sizes[name]}" for name in op.sizes if name in sizes and name not in plain))


def _extents(tensor: Tensor, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(int(evaluate(extent, sizes)) for extent in tensor.shape)
